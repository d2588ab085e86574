"""How strictly, and in which way, the prompt is followed."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from audioldm.cli.console import say
from audioldm.cli.options import Between, Group, option, setting, weighted
from audioldm.errors import AudioLDMError

if TYPE_CHECKING:
    from audioldm.cli.options.model import ModelOptions
    from audioldm.pipeline.guidance import GuidanceConfig


class Guidance(Group):
    """Its scale, the negative prompt, and everything else about it."""

    panel = "Guidance"
    guidance: float | None = option(None, "How strictly to follow the prompt; 1 is no guidance.", Between(0))
    negative: str = option("", "What not to hear.", "TEXT")
    guidance_method: str = setting(
        "classifier_free", "How the two answers of the U-Net are combined.", "NAME[:OPTION=N,...]"
    )
    guidance_interval: tuple[float, float] | None = setting(
        None, "Guide only at noise levels (sigma) from LOW to HIGH.", "LOW,HIGH", Between(0)
    )
    guidance_threshold: tuple[float, float] | None = setting(
        None,
        "Dynamic thresholding: cut |x0| at its quantile, never below FLOOR; 0.995,3 is mild.",
        "QUANTILE,FLOOR",
        Between(0),
    )
    guidance_extra_prompts: list[str] = setting(
        [], "A further prompt; a negative weight avoids it.  Repeatable.", "TEXT[:WEIGHT]"
    )
    guidance_weak: str | None = setting(
        None, "Autoguidance: steer away from this worse model of the same latents.", "FOLDER"
    )
    guidance_clap: float = setting(
        0.0, "Strength of the CLAP score's gradient, such as 30; takes memory and time.", Between(0)
    )
    guidance_classifier: Path | None = setting(
        None, "Classifier guidance: what `audioldm train embedded/classifier` exported.", "FOLDER"
    )
    guidance_class: str | None = setting(
        None, "Which of its classes to steer to; without a prompt it names the clip.", "NAME"
    )
    guidance_classifier_scale: float = setting(
        1.0, "Strength of the classifier's gradient; 1 is Bayes' rule.", Between(0)
    )

    def check(self, sampler: str | None) -> None:
        """Refuse what no run could use, before any weights are read; needs torch."""
        if self.guidance_interval is not None and self.guidance_interval[0] >= self.guidance_interval[1]:
            low, high = self.guidance_interval
            raise AudioLDMError(f"guidance_interval={low:g},{high:g} is empty.", "Give LOW below HIGH.")
        if self.guidance_threshold is not None:
            quantile, floor = self.guidance_threshold
            Between(0, 1).check("guidance_threshold's QUANTILE", quantile)
            Between(0, above=True).check("guidance_threshold's FLOOR", floor)
        if self.guidance_weak is not None and self.negative:
            raise AudioLDMError(
                f"negative={self.negative!r} and guidance_weak both say what to move away from.", "Give one."
            )
        if (self.guidance_classifier is None) != (self.guidance_class is None):
            raise AudioLDMError(
                "guidance_classifier and guidance_class go together.",
                "Give the classifier's folder and the name of one of its classes.",
            )
        if self.guidance_classifier is not None and not self.guidance_classifier.exists():
            raise AudioLDMError(
                f"guidance_classifier={self.guidance_classifier} is not there.",
                "Train one: audioldm recipes embedded/classifier.",
            )
        self.config(None).check(sampler=sampler, scale=self.guidance)

    def config(self, model: "ModelOptions | None") -> "GuidanceConfig":
        """The pipeline's GuidanceConfig; weak model and classifier are loaded by ``model``, None leaves them out."""
        from audioldm.pipeline.guidance import GuidanceConfig

        weak = model.load(self.guidance_weak) if model and self.guidance_weak else None
        target = None
        if model and self.guidance_classifier is not None and self.guidance_class is not None:
            from audioldm.pipeline.guidance import TargetClass

            target = TargetClass.load(self.guidance_classifier, self.guidance_class)
        also = [weighted(text, "guidance_extra_prompts", [1.0]) for text in self.guidance_extra_prompts]
        return GuidanceConfig(
            method=self.guidance_method,
            interval=self.guidance_interval,
            threshold=self.guidance_threshold,
            extra_prompts=tuple((text, weights[0]) for text, weights in also),
            weak=weak,
            clap=self.guidance_clap,
            classifier=target,
            classifier_scale=self.guidance_classifier_scale,
        )

    def settings(self) -> dict[str, Any]:
        """Scale and negative prompt by the pipeline's names."""
        scale = {} if self.guidance is None else {"guidance": self.guidance}
        return {**scale, "negative": self.negative}


def warn_of_unused(settings: dict[str, Any]) -> None:
    """Say that a negative prompt does nothing without guidance."""
    if settings.get("negative") and settings.get("guidance") == 1:
        say(f"warning: negative={settings['negative']!r} does nothing at guidance 1; use --guidance above 1.")
