"""Which model, on which device, in which numbers."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from audioldm.pipeline.audioldm import AudioLDM


@dataclass(frozen=True)
class Machine:
    """The model and what computes it."""

    model: Annotated[
        str | None,
        typer.Option("-m", "--model", metavar="FOLDER", help="Model folder.  [default: the embedded model]"),
    ] = None
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto"
    dtype: Annotated[str, typer.Option(help="Number type of the networks: float32, bfloat16 or float16.")] = (
        "float32"
    )

    def load(self, model: str | None = None) -> "AudioLDM":
        """The pipeline of ``model``, or of the model asked for."""
        return load(model or self.model, device=self.device, dtype=self.dtype)


def load(model: str | None, *, device: str, dtype: str) -> "AudioLDM":
    """The pipeline of ``model``, or of the embedded one for None."""
    import diffusers
    import torch
    import transformers

    from audioldm.pipeline.audioldm import AudioLDM

    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()  # their advice is for programmers
    chosen = device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    return AudioLDM.from_pretrained(model, device=chosen, dtype=getattr(torch, dtype))
