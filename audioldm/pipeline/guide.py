"""How a prompt steers the sampler: from the settings of a run to one guided Denoiser.

B batch, D width of CLAP's space; x0 and latents (B, C, T, F).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as nnf

from audioldm.batch import Condition
from audioldm.diffusion import guidance as wrappers
from audioldm.diffusion.gradients import classifier, reward
from audioldm.diffusion.prediction import Denoiser
from audioldm.diffusion.table import choose
from audioldm.errors import AudioLDMError
from audioldm.nets.hifigan import vocode
from audioldm.nets.vae import decode
from audioldm.pipeline.classes import ClassOf
from audioldm.signal.level import normalise_peak

if TYPE_CHECKING:
    from audioldm.pipeline.audioldm import AudioLDM

METHODS = {
    name: wrappers.GUIDANCE[name]
    for name in ("classifier_free", "rescale", "apg", "cfg_plus_plus", "cfg_zero_star")
}
"""Ways to combine the answer with the prompt and the answer without; each takes (cond, uncond, scale)."""
NOISELESS = ("euler", "ddim", "flow_euler")
"""Samplers of first order without noise: the ones that CFG++ is a step of."""


@dataclass(frozen=True)
class GuidanceConfig:
    """Everything about guidance but its scale and the negative prompt; as it stands, plain classifier-free guidance.

    >>> GuidanceConfig(method="rescale:phi=0.7", interval=(0.3, 5.0)).settings()
    {'guidance_method': 'rescale:phi=0.7', 'guidance_interval': (0.3, 5.0)}
    """

    method: str = "classifier_free"
    """a name in METHODS, with options as ``choose`` reads them"""
    interval: tuple[float, float] | None = None
    """guide only at noise levels sigma from the first to the second"""
    threshold: tuple[float, float] | None = None
    """dynamic thresholding: the quantile of |x0|, and the |x0| below which nothing is clipped"""
    also: tuple[tuple[str, float], ...] = ()
    """further prompts with their weights; a negative one is avoided"""
    weak: "AudioLDM | None" = None
    """a worse model of the same latents and the same CLAP, to extrapolate away from (autoguidance)"""
    clap: float = 0.0
    """strength of the gradient of the CLAP score between the sound and its condition"""
    clap_limit: float = 0.05
    """largest root mean square that the CLAP gradient may move x0 by at a step; a latent's own is about 1

    Far larger moves raise the score too, by loud sounds that only this CLAP finds nearer.
    """

    towards: ClassOf | None = None
    """a class that a classifier of noisy latents is to hear (classifier guidance)"""
    towards_scale: float = 1.0
    """strength of that classifier's gradient; 1 is Bayes' rule"""
    towards_limit: float = 1.0
    """largest root mean square that the classifier may move x0 by at a step; a latent's own is about 1"""

    @property
    def name(self) -> str:
        """The method without its options."""
        return self.method.partition(":")[0]

    def check(self, *, sampler: str | None, scale: float | None, negative: str = "") -> None:
        """Raise AudioLDMError for what does not go together; None is not known yet."""
        choose(METHODS, self.method, "guidance-method")
        if self.name == "cfg_plus_plus":
            if sampler is not None and (sampler.split(":")[0] not in NOISELESS or "eta" in sampler):
                raise AudioLDMError(
                    f"guidance-method=cfg_plus_plus does not go with sampler={sampler}.",
                    f"Use {', '.join(NOISELESS)}.",
                )
            if scale is not None and scale > 1:
                raise AudioLDMError(
                    f"guidance={scale:g} is too much for cfg_plus_plus.", "Use 0 to 1, such as 0.6."
                )
        if self.also and self.name != "classifier_free":
            raise AudioLDMError(
                f"guidance-method={self.method} knows one prompt only.", "Leave out --guidance-also."
            )
        if self.weak is not None and negative:
            raise AudioLDMError(
                f"negative={negative!r} and guidance-weak both say what to move away from.", "Give one."
            )

    def settings(self) -> dict[str, Any]:
        """What differs from plain classifier-free guidance, as a sidecar shows it."""
        plain = GuidanceConfig()
        given = {
            f"guidance_{name}": getattr(self, name)
            for name in ("method", "interval", "threshold", "also", "clap")
            if getattr(self, name) != getattr(plain, name)
        }
        if self.weak is not None:
            given["guidance_weak"] = {"name": self.weak.name, "sha256": self.weak.hashes}
        if self.towards is not None:
            given["guidance_classifier"] = {**self.towards.settings(), "scale": self.towards_scale}
        return given

    def steer(
        self, pipe: "AudioLDM", condition: Condition, empty: Condition, scale: float, sigmas: Tensor
    ) -> Denoiser:
        """The Denoiser of ``pipe`` under ``condition``, guided; ``sigmas`` is the grid of the run."""
        if self.weak is not None:
            check_same_latents(pipe, self.weak)
        alone = pipe.denoiser(condition)
        if self.weak is not None:
            cond, base = alone, self.weak.denoiser(condition)
        elif scale == 1:  # most methods then ask one side only
            cond, base = alone, pipe.denoiser(empty, controlled=0)
        else:
            cond, base = pipe.denoisers(condition, empty)
        combine = choose(METHODS, self.method, "guidance-method")
        if self.also:
            rows = condition.count()
            others = [
                (pipe.denoiser(pipe.encode_text([text] * rows), controlled=0), weight)
                for text, weight in self.also
            ]
            guided = wrappers.compose(base, [(cond, scale), *others])
        elif self.name == "cfg_plus_plus":
            guided = combine(cond, base, scale, sigmas=sigmas)
        else:
            guided = combine(cond, base, scale)
        if self.interval is not None:
            guided = wrappers.interval(guided, alone, low=self.interval[0], high=self.interval[1])
        if self.towards is not None:
            log_prob = self.towards.log_prob(pipe)
            guided = classifier(guided, log_prob, self.towards_scale, limit=self.towards_limit)
        if self.clap:
            guided = reward(guided, ClapScore(pipe, condition), self.clap, limit=self.clap_limit)
        if self.threshold is not None:
            quantile, floor = self.threshold
            guided = wrappers.dynamic_threshold(guided, quantile=quantile, floor=floor)
        return guided


@dataclass(frozen=True)
class ClapScore:
    """The cosine between CLAP's embedding of a latent's sound and the condition, with a gradient to the latent."""

    pipe: "AudioLDM"
    condition: Condition

    def __call__(self, x0: Tensor) -> Tensor:
        """x0 (B, C, T, F) to cosines (B,)."""
        pipe = self.pipe
        if self.condition.film is None:
            raise AudioLDMError(f"{pipe.name} is not conditioned on CLAP.", "Leave out --guidance-clap.")
        wave = vocode(pipe.vocoder, decode(pipe.vae, x0.to(pipe.dtype))).float()
        heard = pipe.clap.embed_audio(normalise_peak(wave), pipe.spec.rate)  # louder is not nearer
        if x0.requires_grad and not heard.requires_grad:
            raise AudioLDMError(f"The CLAP of {pipe.name} gives no gradient.", "Leave out --guidance-clap.")
        return nnf.cosine_similarity(heard, self.condition.film.to(heard), dim=1)


def check_same_latents(pipe: "AudioLDM", weak: "AudioLDM") -> None:
    """Raise AudioLDMError unless ``weak`` speaks of the same latents and is told prompts in the same way."""
    for part in ("vae", "text_encoder"):
        if pipe.hashes.get(part) != weak.hashes.get(part):
            raise AudioLDMError(
                f"guidance-weak={weak.name} has another {part} than {pipe.name}.",
                "Name an earlier or smaller model of the same latents.",
            )
    if torch.device(pipe.device) != torch.device(weak.device):
        raise AudioLDMError(
            f"guidance-weak is on {weak.device}, the model on {pipe.device}.", "Load both alike."
        )
