"""Sounds and words that ``model_lease`` trains on, in parts that travel to a rented machine.

    python -m recipes.embedded.model_parts --out DIR --manifest data/raw/opensounds.jsonl ... \
        --opensounds2 DIR --esc10 DIR --wordnet DIR --held held_out.json

Each part holds sounds and ``list.jsonl``: ``path``, ``weight``, ``kind``, ``texts`` (what may be said of the sound) and
``repeats`` (whether it may be played more than once in a window).   The first part also holds ``words.txt`` (texts
without a sound, for the text tower to learn from MiniLM) and ``valid`` (held-out groups and ESC-10 fold 4).
"""

import argparse
import json
import random
import re
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import soundfile
import torch
from torch import Tensor
from torch.nn import functional as nnf
from transformers import AutoModel, AutoTokenizer

from audioldm.datasets.decode import decode
from audioldm.datasets.manifest import read
from audioldm.evaluation.embedders.yamnet import YamNet
from recipes.embedded.captions import GAME, INSTRUMENTS, kind, wordings

SHARES = {"esc10": 0.12, "open": 0.66, "other": 0.12, "notes": 0.05, "tones": 0.01, "speech": 0.04}
"""``other``: clips whose caption is near no class of AudioSet."""
GAME_WEIGHT = 0.15
TEMPER = 0.6
"""A clip's weight falls with the number of clips of its kind to this power."""
CLASS_POWER = 0.35
"""A class of AudioSet counts as much as its number of clips to this power."""
NEAR = 0.58
"""Cosine of MiniLM's vectors from which on a caption belongs to a class: below it, every other pair is wrong."""
PART_BYTES = 55 * 2**20
ESC10 = {
    "001": "a dog barking", "002": "rain falling", "003": "sea waves", "004": "a baby crying", "005": "a clock ticking",
    "006": "a person sneezing", "007": "a helicopter flying", "008": "a chainsaw running", "009": "a rooster crowing",
    "010": "a fire crackling",
}  # fmt: skip
FRAMES = ("{}", "the sound of {}", "{} in the distance", "{} and {}", "{} followed by {}")


def opus(file: Path, wave: Tensor) -> Path:
    """The wave (N,) at 16 kHz as Ogg Opus, unless the file is there."""
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(file, wave.numpy(), 16000, format="OGG", subtype="OPUS")
    return file


def esc10(folder: Path, work: Path) -> list[dict[str, Any]]:
    """ESC-10's clips; fold 4 is held out."""
    rows = []
    for path in sorted(folder.glob("0*/*.ogg")):
        caption, file = ESC10[path.parent.name[:3]], work / f"{path.parent.name[:3]}-{path.name}"
        file = opus(file, decode(path, 16000))
        rows.append(
            {"file": file, "texts": wordings(caption), "share": "esc10", "held": path.name.startswith("4-")}
        )
    return rows


def opensounds2(folder: Path, held: set[str], work: Path) -> list[dict[str, Any]]:
    """The clips of opensounds2; the groups of ``held`` are held out."""
    for tar in sorted(folder.glob("audio-*.tar")):
        with tarfile.open(tar) as file:
            file.extractall(work, filter="data")
    rows = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    return [
        {
            "file": work / row["path"],
            "texts": wordings(row["caption"]),
            "share": "open",
            "held": row["group"] in held,
        }
        for row in rows
    ]


def manifest(path: Path, work: Path) -> list[dict[str, Any]]:
    """A checked manifest's clips as Ogg Opus; its test rows are left out, its validation rows held out."""
    rows = []
    for number, row in enumerate(read(path)):
        if row.split == "test":
            continue
        wave = decode(row.path, 16000, start=row.start, seconds=row.seconds)
        file = opus(work / f"{path.stem}-{number}.ogg", wave)
        share = next((name for name in ("notes", "tones", "speech") if name in (row.source or "")), "open")
        texts = list(dict.fromkeys([*row.captions, *wordings(row.captions[0])]))
        rows.append({"file": file, "texts": texts, "share": share, "held": row.split == "val"})
    return rows


def audioset_classes(kinds: list[str], names: list[str], minilm: Path) -> dict[str, str]:
    """The class of AudioSet whose name is nearest to each kind of caption, where one is near."""
    folder, vectors = minilm, []
    aliases = [
        (alias, name)
        for name in names
        for alias in dict.fromkeys([name.lower(), *(part.strip().lower() for part in name.split(","))])
    ]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    for texts in (kinds, [alias for alias, _ in aliases]):
        out = []
        for at in range(0, len(texts), 128):
            batch = tokenizer(texts[at : at + 128], padding=True, truncation=True, return_tensors="pt")
            with torch.no_grad():
                hidden = model(**batch).last_hidden_state
            mask = batch.attention_mask[..., None].float()
            out.append(nnf.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1))
        vectors.append(torch.cat(out))
    cosine, place = (vectors[0] @ vectors[1].T).max(1)
    return {
        kind: aliases[i][1]
        for kind, near, i in zip(kinds, cosine.tolist(), place.tolist(), strict=True)
        if near >= NEAR
    }


def weighed(rows: list[dict[str, Any]], classes: dict[str, str]) -> list[dict[str, Any]]:
    """Rows with ``kind``, ``repeats`` and ``weight``; the weights of each share add up to it."""
    for row in rows:
        row["kind"] = kind(row["texts"][0])
        row["class"] = classes.get(row["kind"])
        row["game"] = bool(GAME.match(row["texts"][0]))
        if row["share"] == "open" and (row["game"] or row["class"] is None):
            row["share"] = "other"
    counts = Counter((row["share"], row["kind"]) for row in rows)
    sizes = Counter(row["class"] for row in rows if row["share"] == "open")
    for row in rows:
        rare = counts[row["share"], row["kind"]] ** -TEMPER
        row["weight"] = rare * (GAME_WEIGHT if row["game"] else 1.0)
        row["weight"] *= min(1.0, max(0.35, row.get("seconds", 1.5) / 1.5))
        row["repeats"] = row["share"] == "open" and not re.search(INSTRUMENTS, row["kind"])
    sums: Counter[str] = Counter()
    for row in rows:
        sums[row["class"]] += row["weight"] * (row["share"] == "open")
    totals: Counter[str] = Counter()
    for row in rows:
        if row["share"] == "open":
            row["weight"] *= sizes[row["class"]] ** CLASS_POWER / sums[row["class"]]
        totals[row["share"]] += row["weight"]
    for row in rows:
        row["weight"] *= SHARES[row["share"]] / totals[row["share"]]
    return rows


def words(names: list[str], wordnet: Path | None) -> list[str]:
    """AudioSet's class names in frames, nouns and short glosses of WordNet."""
    lower = [name.lower() for name in names]
    pairs = zip(lower, [*lower[97:], *lower[:97]], strict=True)
    texts = [frame.format(*pair) for pair in pairs for frame in FRAMES]
    for part in ("noun", "verb") if wordnet else ():
        for line in (wordnet / f"data.{part}").read_text(encoding="latin-1").splitlines():
            if line.startswith("  "):
                continue
            head, _, gloss = line.partition(" | ")
            texts += [word.replace("_", " ") for word in head.split()[4:5]]
            texts += [text for text in re.split(r"[;\"]", gloss) if 2 <= len(text.split()) <= 12]
    return list(dict.fromkeys(text.strip().lower() for text in texts if text.strip()))


def main() -> None:
    """Read the command line and write the parts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--manifest", type=Path, nargs="*", default=[])
    parser.add_argument("--opensounds2", type=Path)
    parser.add_argument("--esc10", type=Path)
    parser.add_argument("--wordnet", type=Path)
    parser.add_argument(
        "--minilm", type=Path, required=True, help="tells which class of AudioSet a caption means"
    )
    parser.add_argument("--held", type=Path, help="a JSON list of groups of opensounds2 that are held out")
    args = parser.parse_args()
    held = set(json.loads(args.held.read_text())) if args.held else set()
    rows: list[dict[str, Any]] = []
    if args.esc10:
        rows += esc10(args.esc10, args.out / "encoded")
    if args.opensounds2:
        rows += opensounds2(args.opensounds2, held, args.out / "unpacked")
    for path in args.manifest:
        rows += manifest(path, args.out / "encoded")
    valid = [row for row in rows if row["held"]]
    rows = [row for row in rows if not row["held"]]
    for row in rows:
        row["seconds"] = soundfile.info(row["file"]).duration
    kinds = sorted({kind(row["texts"][0]) for row in rows})
    rows = weighed(rows, audioset_classes(kinds, YamNet().class_names, args.minilm))
    random.Random(0).shuffle(rows)
    number, size, lists = 0, 0, {}
    for place, row in enumerate(rows):
        bytes_ = row["file"].stat().st_size
        if size + bytes_ > PART_BYTES - (20 * 2**20 if number == 0 else 0):
            number, size = number + 1, 0
        size += bytes_
        lists.setdefault(number, []).append((f"{place}{row['file'].suffix}", row))
    lists["valid"] = [(f"{place}{row['file'].suffix}", row) for place, row in enumerate(valid)]
    for name, files in lists.items():
        folder = args.out / (f"part{name}" if isinstance(name, int) else name)
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "list.jsonl").open("w") as file:
            for path, row in files:
                (folder / path).write_bytes(row["file"].read_bytes())
                keys = {k: row[k] for k in ("weight", "kind", "texts", "repeats", "class") if k in row}
                file.write(json.dumps({"path": path, **keys}) + "\n")
        (folder / "done").touch()
        print(name, len(files), f"{sum(p.stat().st_size for p in folder.iterdir()) / 2**20:.1f} MiB")
    (args.out / "words.txt").write_text("\n".join(words(YamNet().class_names, args.wordnet)))
    print(
        f"{len(rows)} clips, {sum(row['seconds'] for row in rows) / 3600:.2f} h, {len({r['kind'] for r in rows})} kinds"
    )


if __name__ == "__main__":
    main()
