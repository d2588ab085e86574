"""Which model, on which device, in which numbers."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from audioldm.errors import AudioLDMWarning

if TYPE_CHECKING:
    from audioldm.pipeline.audioldm import AudioLDM


@dataclass(frozen=True)
class ModelOptions:
    """The model and what computes it."""

    model: Annotated[
        str | None,
        typer.Option(
            "-m",
            "--model",
            metavar="REF",
            help="Model folder, diffusers folder, hub id (owner/name[@revision]), Tango's folder or original .ckpt.  "
            "[default: the embedded model]",
        ),
    ] = None
    heads: Annotated[
        str,
        typer.Option(
            metavar="original|as-published",
            help="Attention heads of a published model: those it was trained with, or the 8 of converted folders.",
        ),
    ] = "original"
    weights: Annotated[
        str,
        typer.Option(metavar="ema|raw", help="Of a .ckpt: the moving average if it has one, or the weights."),
    ] = "ema"
    tokenizer: Annotated[
        Path | None,
        typer.Option(
            help="RoBERTa's vocab.json and merges.txt for a .ckpt, T5's tokenizer.json in tokenizer_2/ inside.  "
            "[default: tokenizer/ and tokenizer_2/ beside it, or the hub's]"
        ),
    ] = None
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto"
    dtype: Annotated[
        str | None,
        typer.Option(
            help="Number type of the networks: float32, bfloat16 or float16.  "
            "[default: float32; bfloat16 in the faster modes]",
            show_default=False,
        ),
    ] = None
    mode: Annotated[
        str,
        typer.Option(
            metavar="exact|split|fast|compiled",
            help="exact: a seed keeps its bytes. split: exact but for rounding, on CPUs with AMX. fast: bfloat16, near "
            "it. compiled: fast, after a wait to compile.",
        ),
    ] = "exact"

    adapter: Annotated[
        list[str],
        typer.Option(
            metavar="FILE[:WEIGHT]",
            show_default=False,
            help="What was learned of a few sounds: a file of `audioldm train personal/...`, kohya, peft.  Repeatable.",
        ),
    ] = field(default_factory=list)

    def load(self, model: str | None = None) -> "AudioLDM":
        """The pipeline of ``model`` as it is, or of the model asked for with its adapters."""
        choices = {"heads": self.heads, "weights": self.weights, "tokenizer": self.tokenizer}
        pipe = load(model or self.model, device=self.device, dtype=self.dtype, mode=self.mode, **choices)
        if model is None:
            adapt(pipe, self.adapter)
        return pipe


def adapt(pipe: "AudioLDM", adapters: Sequence[str]) -> None:
    """Put adapters on ``pipe``; what there is to warn of goes to stderr."""
    with warned():
        pipe.adapt(*adapters)


@contextmanager
def warned() -> Iterator[None]:
    """Our own warnings as lines on stderr, one each."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", AudioLDMWarning)
        yield
    for warning in told:
        if issubclass(warning.category, AudioLDMWarning):
            typer.echo(f"audioldm: warning: {warning.message}", err=True)


def load(model: str | None, *, device: str, dtype: str | None = None, **choices: Any) -> "AudioLDM":
    """The pipeline of ``model``, or of the embedded one for None; tells the licence of weights that are imported."""
    import diffusers
    import torch
    import transformers

    from audioldm.pipeline.audioldm import AudioLDM

    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()  # their advice is for programmers
    chosen = device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    with warned():
        pipe = AudioLDM.from_pretrained(
            model, device=chosen, dtype=dtype and getattr(torch, dtype), **choices
        )
    if pipe.notice:
        typer.echo(f"audioldm: {pipe.name}: {pipe.notice}", err=True)
    return pipe
