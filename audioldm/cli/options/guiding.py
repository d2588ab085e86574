"""How strictly, and in which way, the prompt is followed."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from audioldm.errors import AudioLDMError

if TYPE_CHECKING:
    from audioldm.cli.options.machine import ModelOptions
    from audioldm.pipeline.guidance import GuidanceConfig


@dataclass(frozen=True)
class Guiding:
    """Guidance: its scale, the negative prompt, and everything else about it."""

    guidance: Annotated[
        float | None,
        typer.Option(help="How strictly to follow the prompt; 1 is no guidance.  [default: the model's]"),
    ] = None
    negative: Annotated[str, typer.Option(metavar="TEXT", help="What not to hear.")] = ""
    guidance_method: Annotated[
        str,
        typer.Option(
            metavar="NAME[:OPTION=N,...]",
            help="classifier_free, rescale, apg, cfg_plus_plus or cfg_zero_star; see audioldm samplers.",
        ),
    ] = "classifier_free"
    guidance_interval: Annotated[
        tuple[float, float] | None,
        typer.Option(metavar="LOW HIGH", help="Guide only at noise levels (sigma) from LOW to HIGH."),
    ] = None
    guidance_threshold: Annotated[
        tuple[float, float] | None,
        typer.Option(
            metavar="QUANTILE FLOOR",
            help="Dynamic thresholding: cut |x0| at its quantile, never below FLOOR; 0.995 3 is mild.",
        ),
    ] = None
    guidance_also: Annotated[
        list[str],
        typer.Option(
            metavar="TEXT[:WEIGHT]",
            show_default=False,
            help="A further prompt; a negative weight avoids it.  Repeatable.",
        ),
    ] = field(default_factory=list)
    guidance_weak: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER", help="Autoguidance: steer away from this worse model of the same latents."
        ),
    ] = None
    guidance_clap: Annotated[
        float,
        typer.Option(
            show_default=False,
            help="Strength of the CLAP score's gradient, such as 30; takes memory and time.  [default: 0, none]",
        ),
    ] = 0.0
    guidance_classifier: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Classifier guidance: what `audioldm train embedded/classifier` exported.",
        ),
    ] = None
    guidance_class: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Which of its classes to steer to; without a prompt it names the clip."
        ),
    ] = None
    guidance_classifier_scale: Annotated[
        float,
        typer.Option(help="Strength of the classifier's gradient; 1 is Bayes' rule."),
    ] = 1.0

    def check(self, sampler: str | None) -> None:
        """Refuse what no run could use, before any weights are read; needs torch."""
        if self.guidance_interval is not None:
            low, high = self.guidance_interval
            if not 0 <= low < high < math.inf:
                raise AudioLDMError(
                    f"guidance-interval={low:g} {high:g} is no interval.",
                    "Give LOW below HIGH, both numbers.",
                )
        if self.guidance_threshold is not None:
            quantile, floor = self.guidance_threshold
            if not (0 <= quantile <= 1 and 0 < floor < math.inf):
                raise AudioLDMError(
                    f"guidance-threshold={quantile:g} {floor:g} cannot be.",
                    "Give a QUANTILE of 0 to 1 and a FLOOR above 0.",
                )
        if not (math.isfinite(self.guidance_clap) and self.guidance_clap >= 0):
            raise AudioLDMError(f"guidance-clap={self.guidance_clap:g} is not a strength.", "Use 0 or more.")
        if self.guidance_weak is not None and self.negative:
            raise AudioLDMError(
                f"negative={self.negative!r} and guidance-weak both say what to move away from.", "Give one."
            )
        self.check_classifier()
        self.guide(None).check(sampler=sampler, scale=self.guidance)

    def check_classifier(self) -> None:
        """Refuse half a classifier guidance."""
        if (self.guidance_classifier is None) != (self.guidance_class is None):
            raise AudioLDMError(
                "guidance-classifier and guidance-class go together.",
                "Give the classifier's folder and the name of one of its classes.",
            )
        if self.guidance_classifier is not None and not self.guidance_classifier.exists():
            raise AudioLDMError(
                f"guidance-classifier={self.guidance_classifier} is not there.",
                "Train one: audioldm recipes embedded/classifier.",
            )
        scale = self.guidance_classifier_scale
        if not (math.isfinite(scale) and scale >= 0):
            raise AudioLDMError(f"guidance-classifier-scale={scale:g} is not a strength.", "Use 0 or more.")

    def guide(self, machine: "ModelOptions | None") -> "GuidanceConfig":
        """The pipeline's Guide; a weak model is loaded by ``machine``, None leaves it out."""
        from audioldm.pipeline.guidance import GuidanceConfig

        weak = machine.load(self.guidance_weak) if machine and self.guidance_weak else None
        target = None
        if machine and self.guidance_classifier is not None and self.guidance_class is not None:
            from audioldm.pipeline.guidance import TargetClass

            target = TargetClass.load(self.guidance_classifier, self.guidance_class)
        return GuidanceConfig(
            method=self.guidance_method,
            interval=self.guidance_interval,
            threshold=self.guidance_threshold,
            extra_prompts=tuple(weighted(text, "guidance-also") for text in self.guidance_also),
            weak=weak,
            clap=self.guidance_clap,
            classifier=target,
            classifier_scale=self.guidance_classifier_scale,
        )

    def given(self) -> dict[str, Any]:
        """Scale and negative prompt by the pipeline's names."""
        scale = {} if self.guidance is None else {"guidance": self.guidance}
        return {**scale, "negative": self.negative}


def weighted(text: str, option: str) -> tuple[str, float]:
    """What ``text`` names and the weight behind its last colon, 1 if there is none.

    >>> weighted("birds singing:-0.5", "guidance-also"), weighted("rain", "guidance-also")
    (('birds singing', -0.5), ('rain', 1.0))
    """
    name, colon, tail = text.rpartition(":")
    if not colon:
        name, tail = text, "1"
    try:
        weight = float(tail)
    except ValueError:
        name, weight = text, 1.0
    if not (name.strip() and math.isfinite(weight)):
        raise AudioLDMError(
            f"{option}={text!r} is no NAME:WEIGHT.", "Give a name, and a number behind a colon."
        )
    return name.strip(), weight
