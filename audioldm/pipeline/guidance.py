"""How the sampler is guided: from a configuration to one guided Denoiser.   x0 and latents (B, C, T, F)."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as nnf

from audioldm.batch import Condition
from audioldm.components import Components
from audioldm.diffusion import guidance as wrappers
from audioldm.diffusion.edit import start_level
from audioldm.diffusion.prediction import Denoiser
from audioldm.diffusion.table import choose
from audioldm.errors import AudioLDMError
from audioldm.nets.folder import load_component, state_digest, weight_file, weight_hash
from audioldm.nets.hifigan import vocode
from audioldm.nets.noisy_classifier import NoisyClassifier
from audioldm.nets.vae import decode, encoder_digest
from audioldm.ranges import POSITIVE, SHARE, Between
from audioldm.signal.level import normalise_peak

NAMES = ("classifier_free", "rescale", "apg", "cfg_plus_plus", "cfg_zero_star")
METHODS = {name: wrappers.GUIDANCE[name] for name in NAMES}  # each takes (pair, scale)
NOISELESS = ("euler", "ddim", "flow_euler")  # samplers that CFG++ is a step of
CLASSIFIER_LIMIT, CLAP_LIMIT = 1.0, 0.05
"""Largest root mean square that a gradient moves x0 by; far beyond, only this CLAP finds the (loud) sounds nearer."""


@dataclass(frozen=True)
class TargetClass:
    """A class of a classifier of noisy latents, to steer to."""

    net: NoisyClassifier
    label: str
    sha256: str = ""

    @classmethod
    def load(cls, place: Path | str, label: str) -> "TargetClass":
        """The class ``label`` of the classifier in a folder, or of its weight file.   Raises AudioLDMError."""
        folder = Path(place).parent if Path(place).is_file() else Path(place)
        net: Any = load_component(folder)
        if not isinstance(net, NoisyClassifier):
            use = "Name what `audioldm train embedded/classifier` exported: RUN/model/classifier."
            raise AudioLDMError(f"guidance_classifier={place} holds a {type(net).__name__}.", use)
        if label not in net.config.classes:
            known = f"Known: {', '.join(net.config.classes)}."
            raise AudioLDMError(f"guidance_class={label!r} is not a class of {place}.", known)
        return cls(net.requires_grad_(False), label, weight_hash(weight_file(folder)))

    def log_prob(self, parts: Components) -> Callable[[Tensor, Tensor], Tensor]:
        """log p(class | x; sigma) (B,) for the latents of ``parts``, which must have as many channels."""
        config, channels = self.net.config, parts.spec.latent_channels
        if config.latent_channels != channels:
            why = f"The classifier knows latents of {config.latent_channels} channels, {parts.name} has {channels}."
            raise AudioLDMError(why, "Train one on this model's latents: recipe embedded/classifier.")
        # an encoder that was cast to other numbers is taken on trust
        exact = parts.vae.dtype == torch.float32
        if config.encoder and exact and config.encoder != encoder_digest(parts.vae):
            why = f"The classifier was trained on latents of another encoder than {parts.name}'s: train it anew."
            warnings.warn(why, stacklevel=2)
        index, net = list(config.classes).index(self.label), self.net.to(parts.device)
        return lambda x, sigma: net.log_prob(x, sigma, index)


@dataclass(frozen=True)
class GuidanceConfig:
    """Everything about guidance but its scale and the negative prompt; as it stands, plain.   Raises AudioLDMError."""

    method: str = "classifier_free"  # a name in METHODS, with options as ``choose`` reads them
    interval: tuple[float, float] | None = None  # guide only at levels sigma from the first to the second
    threshold: tuple[float, float] | None = None  # the quantile of |x0| to clip at, and what is never clipped
    extra_prompts: tuple[tuple[str, float], ...] = ()  # more prompts with weights; a negative one is avoided
    weak: Components | None = None  # a worse model of the same latents and CLAP, to extrapolate away from
    clap: float = 0.0  # strength of the gradient of the CLAP score between the sound and its condition
    refiner: Components | None = None  # a model of the same latents for the lowest levels (SDXL sec. 2.5)
    refine: float = 0.2  # the share of the schedule's time that is the refiner's
    classifier: TargetClass | None = None
    classifier_scale: float = 1.0  # strength of the classifier's gradient; 1 is Bayes' rule

    def __post_init__(self) -> None:
        low, high = self.interval or (0.0, inf)
        quantile, floor = self.threshold or (1.0, 1.0)
        if not 0 <= low < high:
            raise AudioLDMError(f"guidance_interval={low:g},{high:g} is out of range.", "Use LOW below HIGH.")
        SHARE.check("guidance_threshold's QUANTILE", quantile)
        POSITIVE.check("guidance_threshold's FLOOR", floor)
        Between(0, 1, above=True).check("refine", self.refine)
        Between(0).check("clap", self.clap)
        Between(0).check("classifier_scale", self.classifier_scale)

    def check(self, *, sampler: str | None, scale: float | None, negative: str = "") -> None:
        """Raise AudioLDMError for what does not go together; None is not known yet."""
        choose(METHODS, self.method, "guidance_method")
        if self.method == "cfg_plus_plus":
            check_cfg_plus_plus(sampler, scale)
        if self.extra_prompts and self.method != "classifier_free":
            raise AudioLDMError(f"guidance_method={self.method} knows one prompt only.", "Give one.")
        if self.weak is not None and negative:
            raise AudioLDMError(f"negative={negative!r} and guidance_weak exclude each other.", "Give one.")

    def settings(self) -> dict[str, Any]:
        """What differs from plain classifier-free guidance, as a sidecar shows it."""
        plain, names = GuidanceConfig(), ("method", "interval", "threshold", "extra_prompts", "clap")
        pairs = {name: getattr(self, name) for name in names if getattr(self, name) != getattr(plain, name)}
        changed = {f"guidance_{name}": value for name, value in pairs.items()}
        if self.weak is not None:
            changed["guidance_weak"] = {"name": self.weak.name, "sha256": self.weak.hashes}
        if (net := self.refiner) is not None:
            changed["refiner"] = {"name": net.name, "sha256": net.hashes, "refine": self.refine}
        if (aim := self.classifier) is not None:
            scale = self.classifier_scale
            changed["guidance_classifier"] = {"class": aim.label, "sha256": aim.sha256, "scale": scale}
        return changed

    def steer(
        self, parts: Components, condition: Condition, empty: Condition, scale: float, sigmas: Tensor
    ) -> Denoiser:
        """The Denoiser under ``condition``, guided on the run's grid; a refiner takes over below its noise level."""
        if self.refiner is not None:
            check_same_latents(parts, self.refiner, "refiner")
            alone = replace(self, refiner=None)
            first, last = (alone.steer(net, condition, empty, scale, sigmas) for net in (parts, self.refiner))
            return wrappers.interval(first, last, low=start_level(parts.schedule, self.refine), high=inf)
        if self.weak is not None:
            check_same_latents(parts, self.weak, "guidance_weak")
            pair = wrappers.Pair(parts.denoiser(condition), self.weak.denoiser(condition))
        else:
            pair = parts.denoisers(condition, empty)
            # without guidance a method needs one side only
            pair = replace(pair, both=None) if scale == 1 else pair
        if self.extra_prompts:
            texts = ((parts.encode_text([text] * condition.count()), w) for text, w in self.extra_prompts)
            others = [(parts.denoiser(extra, controlled=0), weight) for extra, weight in texts]
            guided = wrappers.compose(pair, scale, others)
        else:
            combine: Callable[..., Denoiser] = choose(METHODS, self.method, "guidance_method")
            guided = combine(pair, scale, **({"sigmas": sigmas} if self.method == "cfg_plus_plus" else {}))
        if self.interval is not None:
            guided = wrappers.interval(guided, pair.cond, low=self.interval[0], high=self.interval[1])
        if self.classifier is not None:
            log_prob, strength = self.classifier.log_prob(parts), self.classifier_scale
            guided = wrappers.classifier(guided, log_prob, strength, limit=CLASSIFIER_LIMIT)
        if self.clap:
            guided = wrappers.reward(guided, clap_score(parts, condition), self.clap, limit=CLAP_LIMIT)
        if self.threshold is not None:
            guided = wrappers.dynamic_threshold(guided, quantile=self.threshold[0], floor=self.threshold[1])
        return guided


def check_cfg_plus_plus(sampler: str | None, scale: float | None) -> None:
    if sampler is not None and (sampler.split(":")[0] not in NOISELESS or "eta" in sampler):
        hint = f"Use {', '.join(NOISELESS)}."
        raise AudioLDMError(f"cfg_plus_plus does not go with sampler={sampler}.", hint)
    if scale is not None and scale > 1:
        raise AudioLDMError(f"guidance={scale:g} is too much for cfg_plus_plus.", "Use 0 to 1.")


def clap_score(parts: Components, condition: Condition) -> Callable[[Tensor], Tensor]:
    """From x0 (B, C, T, F) to the cosines (B,) of its sound's CLAP embedding and the condition, with a gradient."""
    film = condition.film
    if film is None:
        raise AudioLDMError(f"{parts.name} is not conditioned on CLAP.", "Leave out guidance_clap.")

    def score(x0: Tensor) -> Tensor:
        wave = vocode(parts.vocoder, decode(parts.vae, x0.to(parts.dtype))).float()
        # normalised, because louder is not nearer
        vector = parts.clap.embed_audio(normalise_peak(wave), parts.spec.rate)
        if x0.requires_grad and not vector.requires_grad:
            raise AudioLDMError(f"The CLAP of {parts.name} gives no gradient.", "Leave out guidance_clap.")
        return nnf.cosine_similarity(vector, film.to(vector), dim=1)

    return score


def check_same_latents(parts: Components, other: Components, option: str) -> None:
    """Raise AudioLDMError unless ``other`` has the same latents and is conditioned in the same way."""
    for part, net in (("vae", "vae"), ("text_encoder", "clap")):
        # the same weights may lie in another number type
        alike = parts.hashes.get(part) == other.hashes.get(part)
        if not alike and state_digest(getattr(parts, net)) != state_digest(getattr(other, net)):
            use = "Name a model of the same latents."
            raise AudioLDMError(f"{option}={other.name} has another {part} than {parts.name}.", use)
