"""Look into an adapter file, or write it as others read it."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from audioldm.cli.checks import check_free
from audioldm.cli.console import show_text, warned
from audioldm.cli.options import AsJson, Command, Force, Group, argument, group, option
from audioldm.cli.options.groups import load, model_option
from audioldm.errors import AudioLDMError

if TYPE_CHECKING:
    from audioldm.adapters.adapter import Adapter
    from audioldm.adapters.words import Words


class OneFile(Group):
    file: Path = argument(..., "An adapter of ours, of kohya (LyCORIS) or of peft.")
    model: str | None = model_option("The model it is for.")

    def open(self) -> "Adapter | Words":
        """The adapter, warnings on stderr; the model is loaded only if the file's names need it."""
        from audioldm.adapters import files

        kohya = any(key.startswith(files.KOHYA) for key in files.load(self.file)[0])
        net = load(self.model, device="cpu").unet if kohya else None
        with warned():
            return files.read(self.file, net)


class Show(AsJson, OneFile, Command):
    """Kind, rank, targets, base, and what it was trained for.

    \b
    Examples:
      audioldm adapter show runs/personal/lora/model/adapter.safetensors
      audioldm adapter show kohya.safetensors -m my_model --json
    """

    def run(self) -> None:
        from audioldm.adapters.words import Words

        adapter = self.open()
        table: dict[str, Any] = {"kind": adapter.kind, "parameters": adapter.parameters}
        if isinstance(adapter, Words):
            table |= {"word": adapter.word, "rank": len(adapter.rows)}
        else:
            sizes = {"rank": adapter.rank, "alpha": adapter.alpha, "layers": len(adapter.layers)}
            table |= {**sizes, "targets": list(adapter.targets)}
        table |= {"base": adapter.base, **adapter.about, "bytes": self.file.stat().st_size}
        lines = []
        for name, value in table.items():
            if isinstance(value, list):
                value = ", ".join(value[:12] + ["..."] * (len(value) > 12))
            lines.append(f"{name}: {value}")
        self.show(table, "\n".join(lines))


class Convert(Force, OneFile, Command):
    """Write an adapter in another layout; the change that it makes stays the same.

    \b
    Examples:
      audioldm adapter convert mine.safetensors --to kohya -o mine_kohya.safetensors
      audioldm adapter convert their/adapter_model.safetensors -o mine.safetensors
    """

    out: Path = option(..., "File to write; for peft a folder.", "-o", "PATH")
    to: Literal["audioldm", "kohya", "peft"] = option("audioldm", "Layout.")

    def run(self) -> None:
        from audioldm.adapters.files import export, write

        check_free(self.out, force=self.force)
        if self.to != "peft" and self.out.suffix != ".safetensors":
            raise AudioLDMError(f"out={self.out} is no .safetensors.", "Name a file that ends so.")
        adapter = self.open()
        if self.to == "audioldm":
            write(self.out, adapter)
        for path in [self.out] if self.to == "audioldm" else export(self.out, adapter, self.to):
            show_text(path)


app = group(__doc__, (Show, Convert))
