"""Which model, on which device, in which numbers."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from audioldm.cli.checks import check_device
from audioldm.cli.console import say, warned
from audioldm.cli.options import Setting

if TYPE_CHECKING:
    from audioldm.pipeline.audioldm import AudioLDM

option = partial(typer.Option, rich_help_panel="Model and device", show_default=False)


@dataclass(frozen=True)
class PublishedOptions:
    """How a published model is read."""

    heads: Annotated[
        Literal["original", "as-published"],
        Setting("Attention heads of a published model: of its training, or the 8 of converted folders."),
    ] = "original"
    weights: Annotated[
        Literal["ema", "raw"], Setting("Of a .ckpt: the moving average if it has one, or the weights.")
    ] = "ema"
    tokenizer: Annotated[
        Path | None,
        Setting("Folder with RoBERTa's vocab.json and merges.txt for a .ckpt; T5's in tokenizer_2/ inside."),
    ] = None

    def choices(self) -> dict[str, Any]:
        """As ``convert.model.Choices`` takes them."""
        return {"heads": self.heads, "weights": self.weights, "tokenizer": self.tokenizer}


@dataclass(frozen=True)
class ModelOptions:
    """The model and what computes it."""

    model: Annotated[
        str | None,
        option(
            "-m",
            "--model",
            metavar="REF",
            help="Folder, hub id (owner/name[@revision]) or original .ckpt.  [default: the embedded model]",
        ),
    ] = None
    adapter: Annotated[
        list[str],
        option(metavar="FILE[:WEIGHT]", help="LoRA, learned word, ... of personal/ recipes.  Repeatable."),
    ] = field(default_factory=list)
    device: Annotated[str, option(help="cpu, cuda, cuda:N or mps.  [default: cuda where it is]")] = "auto"
    mode: Annotated[
        Literal["exact", "fast", "compiled"],
        option(help="exact: a seed keeps its bytes. fast: bfloat16. See docs/speed.md.  [default: exact]"),
    ] = "exact"
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16"] | None,
        Setting("Number type of the networks; the faster modes have bfloat16."),
    ] = None
    published: PublishedOptions = field(default_factory=PublishedOptions)

    def check(self) -> None:
        """Refuse an unknown device."""
        check_device(self.device)

    def load(self, model: str | None = None) -> "AudioLDM":
        """The pipeline of ``model`` as it is, or of the model asked for with its adapters."""
        choices = self.published.choices()
        pipe = load(model or self.model, device=self.device, dtype=self.dtype, mode=self.mode, **choices)
        if model is None:
            adapt(pipe, self.adapter)
        return pipe


def adapt(pipe: "AudioLDM", adapters: Sequence[str]) -> None:
    """Put adapters on ``pipe``; what there is to warn of goes to stderr."""
    with warned():
        pipe.adapt(*adapters)


def load(model: str | None, *, device: str, dtype: str | None = None, **choices: Any) -> "AudioLDM":
    """The pipeline of ``model``, or of the embedded one for None; says the licence of weights that are imported."""
    import diffusers
    import torch
    import transformers

    from audioldm.engines import keep_freed_memory
    from audioldm.pipeline.audioldm import AudioLDM

    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()  # their advice is for programmers
    place = device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    if place == "cpu":
        keep_freed_memory()
    with warned():
        pipe = AudioLDM.from_pretrained(
            model, device=place, dtype=getattr(torch, dtype) if dtype else None, **choices
        )
    if pipe.notice:
        say(f"{pipe.name}: {pipe.notice}")
    return pipe
