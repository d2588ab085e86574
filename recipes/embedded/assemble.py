"""Joins what was trained into a model folder, and writes its card.

    python -m recipes.embedded.assemble model --unet DIR --clap DIR [--vae DIR] [--vocoder DIR] --name NAME -o MODEL
    python -m recipes.embedded.assemble card -o MODEL --parts DIR [--checks CHECKS.md]

Parts that are not named are those of ``--base``, the embedded model.   Weights may lie in pieces, as ``model_lease``
leaves them.   Controls and adapters are not taken over: they belong to one U-Net (``recipes.embedded.extras``).
"""

import argparse
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from audioldm.convert.model import save_model
from audioldm.convert.reference import open_model
from audioldm.nets.folder import COMPONENTS, class_name, load_component, read_json
from audioldm.paths import write_text
from recipes.embedded.model_lease import load_clap


def component(folder: Path) -> Any:
    """The net of a folder, whole or in pieces (0.safetensors, 1.safetensors, ...), float32."""
    pieces = sorted(folder.glob("[0-9]*.safetensors"))
    if not pieces:
        return load_component(folder)
    config = read_json(folder / "config.json")
    net = COMPONENTS[class_name(config)].from_config(config)
    net.load_state_dict({key: value.float() for piece in pieces for key, value in load_file(piece).items()})
    return net.eval()


def join(args: argparse.Namespace) -> None:
    """Write the model folder."""
    model = open_model(args.base)
    named = {name: getattr(args, name) for name in ("unet", "vae", "vocoder", "clap")}
    changes: dict[str, Any] = {
        name: load_clap(place) if name == "clap" else component(place)
        for name, place in named.items()
        if place
    }
    about = {key: value for key, value in model.about.items() if key != "latents" or "unet" not in changes}
    defaults = model.defaults.merged(guidance=args.guidance)
    model = replace(model, **changes, name=args.name, about=about, defaults=defaults)
    save_model(model, args.out, dtype=torch.float16)
    print(
        f"{args.out}: {', '.join(sorted(changes)) or 'nothing'} new, the rest of {args.base or 'the embedded model'}"
    )


def size(folder: Path) -> float:
    """MB of the weights below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*.safetensors")) / 1e6


def card(args: argparse.Namespace) -> None:
    """Write README.md of the model folder: its parts, what it learned from, its extras and its release checks."""
    about = json.loads((args.out / "audioldm.json").read_text())
    lines = [f"# {about['name']}", "", "Text to sound, 16 kHz; `audioldm generate PROMPT -m FOLDER`.", ""]
    lines += ["| part | class | parameters | MB |", "|---|---|--:|--:|"]
    for name in ("unet", "vae", "vocoder", "text_encoder", "audio_encoder"):
        folder = args.out / name
        config = read_json(folder / "config.json")
        kind = config.get("_class_name") or ", ".join(config.get("architectures", ["?"]))
        count = sum(
            value.numel() for path in folder.glob("*.safetensors") for value in load_file(path).values()
        )
        lines.append(f"| {name} | {kind} | {count / 1e6:.2f} M | {size(folder):.1f} |")
    lines += ["", f"Defaults: {', '.join(f'{k} {v}' for k, v in about['defaults'].items())}.", ""]
    rows = [
        json.loads(line)
        for path in sorted(args.parts.glob("part*/list.jsonl"))
        for line in path.read_text().splitlines()
    ]
    kinds = Counter(row["kind"] for row in rows)
    held = len((args.parts / "valid" / "list.jsonl").read_text().splitlines())
    lines += ["## What it learned from", ""]
    lines += [
        f"{len(rows)} clips, {len(kinds)} kinds of caption; {held} more were held out. Each file's licence and"
    ]
    lines += [
        "author: [ATTRIBUTION.md](ATTRIBUTION.md). How it was made: docs/embedded.md, `make embedded`.",
        "",
    ]
    checks = sorted((args.out / "checks").glob("*.json"))
    if checks:
        lines += ["## Controls and an adapter that come with it", ""]
        lines += ["Held-out clips, another clip's words, the same noise with and without.", ""]
        lines += [
            "| net | MB | without | with | better on | batches | measure |",
            "|---|--:|--:|--:|--:|--:|---|",
        ]
    for path in checks:
        row = json.loads(path.read_text())
        adapter = args.out / "adapters" / f"{path.stem}.safetensors"
        mb = adapter.stat().st_size / 1e6 if adapter.is_file() else size(args.out / "control" / path.stem)
        values = f"{row['without']:.2f} | {row['with']:.2f} | {row['better']} of {row['of']}"
        lines.append(
            f"| {path.stem} | {mb:.2f} | {values} | {row['batches']} x {row['rows']} | {row['measure']} |"
        )
    if args.checks:
        lines += ["", "## What was measured", "", args.checks.read_text().strip()]
    lines += ["", "## Licence", "", "CC-BY-SA-4.0, with the attribution in ATTRIBUTION.md.", ""]
    write_text(args.out / "README.md", "\n".join(lines))
    print(args.out / "README.md")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("model", "card"))
    parser.add_argument("-o", "--out", type=Path, required=True)
    for name in ("base", "unet", "clap", "vae", "vocoder", "parts", "checks"):
        parser.add_argument(f"--{name}", type=Path)
    parser.add_argument("--name", default="embedded-v2")
    parser.add_argument("--guidance", type=float, help="the default scale of guidance")
    args = parser.parse_args()
    {"model": join, "card": card}[args.what](args)


if __name__ == "__main__":
    main()
