"""Which model, on which device, in which numbers."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from audioldm.cli.checks import check_device
from audioldm.cli.console import say, warned
from audioldm.cli.options import Group, option, setting

if TYPE_CHECKING:
    from audioldm.pipeline.audioldm import AudioLDM


def model_option(help: str = "Folder, hub id (owner/name[@revision]) or original .ckpt.") -> Any:
    """A model by reference."""
    return option(None, f"{help}  [default: the embedded model]", "-m", "--model", "REF")


class PublishedOptions(Group):
    """How a published model is read."""

    heads: Literal["original", "as-published"] = setting(
        "original", "Attention heads of a published model: of its training, or the 8 of converted folders."
    )
    weights: Literal["ema", "raw"] = setting(
        "ema", "Of a .ckpt: the moving average if it has one, or the weights."
    )
    tokenizer: Path | None = setting(
        None, "Folder with RoBERTa's vocab.json and merges.txt for a .ckpt; T5's in tokenizer_2/ inside."
    )


class ModelOptions(Group):
    """The model and what computes it."""

    panel = "Model and device"
    model: str | None = model_option()
    adapter: list[str] = option(
        [], "LoRA, learned word, ... of personal/ recipes.  Repeatable.", "FILE[:WEIGHT]"
    )
    device: str = option("auto", "cpu, cuda, cuda:N or mps.  [default: cuda where it is]")
    mode: Literal["exact", "fast", "compiled"] = option(
        "exact", "exact: a seed keeps its bytes. fast: bfloat16. See docs/speed.md."
    )
    dtype: Literal["float32", "bfloat16", "float16"] | None = setting(
        None, "Number type of the networks; the faster modes have bfloat16."
    )
    published: PublishedOptions = PublishedOptions()

    def check(self) -> None:
        """Refuse an unknown device."""
        check_device(self.device)

    def load(self, model: str | None = None) -> "AudioLDM":
        """The pipeline of ``model`` as it is, or of the model asked for with its adapters."""
        choices = vars(self.published)
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
        library.utils.logging.disable_progress_bar()
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
