"""Look into an adapter file, or write it as others read it."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from audioldm.cli.checks import check_free
from audioldm.cli.console import show_text, warned
from audioldm.cli.options import AsJson, Command, Force, argument, group, option
from audioldm.cli.options.groups import load, model_option
from audioldm.errors import AudioLDMError

if TYPE_CHECKING:
    from audioldm.adapters.adapter import Adapter
    from audioldm.adapters.words import Words

FILE = "An adapter of ours, of kohya (LyCORIS) or of peft."


class Show(AsJson, Command):
    """Kind, rank, targets, base, and what it was trained for.

    \b
    Examples:
      audioldm adapter show runs/personal/lora/model/adapter.safetensors
      audioldm adapter show kohya.safetensors -m my_model --json
    """

    file: Path = argument(..., FILE)
    model: str | None = model_option("The model it is for.")

    def run(self) -> None:
        from audioldm.adapters.words import Words

        adapter = opened(self.file, self.model)
        table: dict[str, Any] = {"kind": adapter.kind, "parameters": adapter.parameters}
        if isinstance(adapter, Words):
            table |= {"word": adapter.word, "rank": len(adapter.rows)}
        else:
            table |= {"rank": adapter.rank, "alpha": adapter.alpha, "layers": len(adapter.layers)}
            table |= {"targets": list(adapter.targets)}
        table |= {"base": adapter.base, **adapter.about, "bytes": self.file.stat().st_size}
        words = {
            n: ", ".join(v[:12] + ["..."] * (len(v) > 12)) if isinstance(v, list) else v
            for n, v in table.items()
        }
        self.show(table, "\n".join(f"{name}: {value}" for name, value in words.items()))


class Convert(Force, Command):
    """Write an adapter in another layout; the change that it makes stays the same.

    \b
    Examples:
      audioldm adapter convert mine.safetensors --to kohya -o mine_kohya.safetensors
      audioldm adapter convert their/adapter_model.safetensors -o mine.safetensors
    """

    file: Path = argument(..., FILE)
    out: Path = option(..., "File to write; for peft a folder.", "-o", "PATH")
    to: Literal["audioldm", "kohya", "peft"] = option("audioldm", "Layout.")
    model: str | None = model_option("The model it is for.")

    def run(self) -> None:
        from audioldm.adapters.files import export, write

        out = self.out
        check_free(out, force=self.force)
        if self.to != "peft" and out.suffix != ".safetensors":
            raise AudioLDMError(f"out={out} is no .safetensors.", "Name a file that ends so.")
        adapter = opened(self.file, self.model)
        if self.to == "audioldm":
            write(out, adapter)
        for path in [out] if self.to == "audioldm" else export(out, adapter, self.to):
            show_text(path)


def opened(file: Path, model: str | None) -> "Adapter | Words":
    """The adapter, warnings on stderr; the model is loaded only if the file's names need it."""
    from audioldm.adapters import files
    from audioldm.adapters.files import KOHYA

    kohya = any(key.startswith(KOHYA) for key in files.load(file)[0])
    net = load(model, device="cpu").unet if kohya else None
    with warned():
        return files.read(file, net)


app = group(__doc__, {"show": Show, "convert": Convert})
