"""``audioldm adapter``: what an adapter file holds, and the same in another layout."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from audioldm.errors import AudioLDMError

if TYPE_CHECKING:
    from audioldm.adapters.adapter import Adapter
    from audioldm.adapters.words import Words

LAYOUTS = ("audioldm", "kohya", "peft")
File = Annotated[Path, typer.Argument(help="An adapter of ours, of kohya (LyCORIS) or of peft.")]
Model = Annotated[
    str | None,
    typer.Option("-m", "--model", metavar="REF", help="The model it is for.  [default: the embedded model]"),
]

app = typer.Typer(add_completion=False, rich_markup_mode=None, no_args_is_help=True)


@app.callback()
def adapter() -> None:
    """Look into an adapter file, or write it as others read it.

    \b
    Examples:
      audioldm adapter show mine.safetensors
      audioldm adapter convert mine.safetensors --to peft -o out/mine_peft
    """


@app.command()
def show(
    file: File,
    model: Model = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Kind, rank, targets, base, and what it was trained for.

    \b
    Examples:
      audioldm adapter show runs/personal/lora/model/adapter.safetensors
      audioldm adapter show kohya.safetensors -m my_model --json
    """
    table = facts(opened(file, model)) | {"bytes": file.stat().st_size}
    if as_json:
        print(json.dumps(table, indent=2, ensure_ascii=False))
        return
    for name, value in table.items():
        listed = isinstance(value, list)
        print(f"{name}: {', '.join(value[:12]) + (' ...' if len(value) > 12 else '') if listed else value}")


@app.command()
def convert(
    file: File,
    out: Annotated[Path, typer.Option("-o", "--out", help="File to write; for peft a folder.")],
    to: Annotated[str, typer.Option(metavar="audioldm|kohya|peft", help="Layout.")] = "audioldm",
    model: Model = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what is there.")] = False,
) -> None:
    """Write an adapter in another layout; the change that it makes stays the same.

    \b
    Examples:
      audioldm adapter convert mine.safetensors --to kohya -o mine_kohya.safetensors
      audioldm adapter convert their/adapter_model.safetensors -o mine.safetensors
    """
    from audioldm.adapters.files import export, write

    if to not in LAYOUTS:
        raise AudioLDMError(f"to={to!r} is no layout.", f"Known: {', '.join(LAYOUTS)}.")
    if out.exists() and not force:
        raise AudioLDMError(f"{out} is there already.", "Pass --force to replace it.")
    if to != "peft" and out.suffix != ".safetensors":
        raise AudioLDMError(f"out={out} is no .safetensors.", "Name a file that ends so.")
    adapter = opened(file, model)
    if to == "audioldm":
        write(out, adapter)
        print(out)
        return
    for path in export(out, adapter, to):
        print(path)


def opened(file: Path, model: str | None) -> "Adapter | Words":
    """The adapter, warnings on stderr; the model is loaded only if the file's names need it."""
    from audioldm.adapters.files import load, read
    from audioldm.adapters.layouts import KOHYA
    from audioldm.cli.console import warned
    from audioldm.cli.options.model import load as load_model

    net = None
    if any(key.startswith(KOHYA) for key in load(file)[0]):
        net = load_model(model, device="cpu").unet
    with warned():
        return read(file, net)


def facts(adapter: "Adapter | Words") -> dict[str, Any]:
    """Kind, size, targets, base, and what the file says of its training."""
    from audioldm.adapters.words import Words

    table: dict[str, Any] = {"kind": adapter.kind, "parameters": adapter.parameters}
    if isinstance(adapter, Words):
        table |= {"word": adapter.word, "rank": len(adapter.rows)}
    else:
        table |= {"rank": adapter.rank, "alpha": adapter.alpha, "layers": len(adapter.layers)}
        table |= {"targets": list(adapter.targets)}
    return {**table, "base": adapter.base, **adapter.about}
