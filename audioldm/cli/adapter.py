"""Look into an adapter file, or write it as others read it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from audioldm.cli.checks import check_free
from audioldm.cli.console import show_text, warned
from audioldm.cli.options import AsJson, Command, Force, Group, argument, group, option
from audioldm.cli.options.groups import load, model_option
from audioldm.cli.startup import later
from audioldm.errors import AudioLDMError

with later():
    from audioldm.adapters import adapter, files, words


class OneFile(Group):
    file: Path = argument(..., "An adapter of ours, of kohya (LyCORIS) or of peft.")
    model: str | None = model_option("The model it is for.")

    def open(self) -> adapter.Adapter | words.Words:
        """The adapter, warnings on stderr; the model is loaded only if the file's names need it."""
        kohya = any(key.startswith(files.KOHYA) for key in files.load(self.file)[0])
        net = load(self.model, device="cpu").unet if kohya else None
        with warned():
            return files.read(self.file, net)


class Show(AsJson, OneFile, Command):
    """Kind, rank, targets, base, and what it was trained for.

    Examples:
      audioldm adapter show runs/personal/lora/model/adapter.safetensors
      audioldm adapter show kohya.safetensors -m my_model --json
    """

    def run(self) -> None:
        adapter, lines = self.open(), []
        table: dict[str, Any] = {"kind": adapter.kind, "parameters": adapter.parameters}
        if isinstance(adapter, words.Words):
            table |= {"word": adapter.word, "rank": len(adapter.rows)}
        else:
            table |= {"rank": adapter.rank, "alpha": adapter.alpha, "layers": len(adapter.layers)}
            table["targets"] = list(adapter.targets)
        table |= {"base": adapter.base, **adapter.about, "bytes": self.file.stat().st_size}
        for name, value in table.items():
            if isinstance(value, list):
                value = ", ".join(value[:12] + ["..."] * (len(value) > 12))
            lines.append(f"{name}: {value}")
        self.show(table, "\n".join(lines))


class Convert(Force, OneFile, Command):
    """Write an adapter in another layout; the change that it makes stays the same.

    Examples:
      audioldm adapter convert mine.safetensors --to kohya -o mine_kohya.safetensors
      audioldm adapter convert their/adapter_model.safetensors -o mine.safetensors
    """

    out: Path = option(..., "File to write; for peft a folder.", "-o", "PATH")
    to: Literal["audioldm", "kohya", "peft"] = option("audioldm", "Layout.")

    def run(self) -> None:
        check_free(self.out, force=self.force)
        if self.to != "peft" and self.out.suffix != ".safetensors":
            raise AudioLDMError(f"out={self.out} is no .safetensors.", "Name a file that ends so.")
        adapter, paths = self.open(), [self.out]
        if self.to == "audioldm":
            files.write(self.out, adapter)
        else:
            paths = files.export(self.out, adapter, self.to)
        for path in paths:
            show_text(path)


app = group(__doc__, (Show, Convert))
