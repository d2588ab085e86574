"""A model as its parts: the nets, their settings, and everything that is needed to run them.   B batch."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor
from transformers import SpeechT5HifiGan

from audioldm.adapters.adapter import Adapted
from audioldm.batch import Condition
from audioldm.control.controls import Control
from audioldm.diffusion.guidance import Pair
from audioldm.diffusion.prediction import Denoiser, Prediction, as_denoiser
from audioldm.diffusion.schedule import NoiseSchedule, audioldm
from audioldm.engines import Clap, Engine, Mode
from audioldm.errors import AudioLDMError, AudioLDMWarning
from audioldm.nets.clap import check_texts, unread_words
from audioldm.nets.istft_vocoder import ISTFTVocoder
from audioldm.nets.prior import Prior
from audioldm.nets.text_encoder import AudioLDM2TextEncoder, T5TextEncoder
from audioldm.nets.unet import LatentUNet, NetCall, kind_of
from audioldm.ranges import SAMPLING
from audioldm.signal.invert import refine_phase as refine
from audioldm.spec import AudioSpec

FEW = 8  # Steps that only a model without guidance takes by default: a student


@dataclass(frozen=True)
class Sampling:
    """How a sound is sampled; as it stands, what the original AudioLDM does.   Raises AudioLDMError out of range."""

    seconds: float = 10.24
    steps: int = 200
    sampler: str = "ddim:eta=1"  # a name in ``diffusion.samplers``, with options (``diffusion.table.choose``)
    grid: str = "published"  # a name in ``diffusion.grids``
    guidance: float = 2.5  # scale of classifier-free guidance; 1 is none
    negative: str = ""  # the prompt to steer away from
    refine_phase: int = 0  # rounds that bring the vocoder's sound to its mel (``signal.invert.refine_phase``)
    retry_silent: int = 0  # how often a clip that came out silent is drawn again

    def __post_init__(self) -> None:
        for name, limits in SAMPLING.items():
            limits.check(name, getattr(self, name))

    def merged(self, **options: Any) -> "Sampling":
        """These settings with ``options`` instead; None keeps a setting.   Raises TypeError for an unknown one."""
        return replace(self, **{name: value for name, value in options.items() if value is not None})


def warn_of_student(defaults: Sampling, settings: Sampling) -> None:
    """AudioLDMWarning where a model that was distilled to few steps is sampled in another way."""
    if defaults.guidance != 1 or defaults.steps > FEW:
        return
    # one that draws fresh noise between its calls may take any number of them
    few, free = defaults.steps, defaults.sampler.startswith("consistency")
    least, most, span = (1, 2 * few, f"1 to {2 * few}") if free else (few, few, few)
    names = ("sampler", "grid", "guidance")
    other = {k: v for k in names if (v := getattr(settings, k)) != getattr(defaults, k)}
    if not least <= settings.steps <= most:
        other["steps"] = settings.steps
    if other:
        why = f"this model was distilled: {', '.join(f'{k}={v}' for k, v in other.items())} makes it worse"
        use = f"use {defaults.sampler}, {span} steps and guidance 1"
        warnings.warn(f"{why}; {use}, or the model without its adapter.", AudioLDMWarning, stacklevel=3)


def warn_of_unused(negative: str | None, guidance: float | None) -> None:
    """AudioLDMWarning for a negative prompt without guidance, which does nothing."""
    if negative and guidance == 1:
        why = f"negative={negative!r} does nothing at guidance 1; use guidance above 1."
        warnings.warn(why, AudioLDMWarning, stacklevel=3)


@dataclass(frozen=True, eq=False)
class Components:
    """The parts of one model; ``dataclasses.replace`` gives a model with others, which shares the rest."""

    unet: LatentUNet
    vae: AutoencoderKL
    vocoder: SpeechT5HifiGan | ISTFTVocoder
    clap: Clap
    spec: AudioSpec
    token_encoder: T5TextEncoder | AudioLDM2TextEncoder | None = None  # for a U-Net that attends to tokens
    schedule: NoiseSchedule = field(default_factory=audioldm)
    prediction: Prediction = "eps"
    defaults: Sampling = field(default_factory=Sampling)
    name: str = "unnamed"
    about: dict[str, Any] = field(default_factory=dict)  # what a model folder records of where it came from
    hashes: dict[str, str] = field(default_factory=dict)  # sha256 of each weight file
    notice: str = ""  # a licence that whoever imports these weights must read
    controls: tuple[Control, ...] = ()  # maps that every sound follows, and sounds that it attends to
    prior: Prior | None = None  # draws a sound's vector from a prompt's, for a U-Net trained on sound alone
    # how the nets are run; made here unless those of another model are shared
    engine: Engine = field(default=None, repr=False)  # type: ignore[assignment]

    def __post_init__(self) -> None:
        nets, engine = (self.unet, self.vae, self.vocoder, self.clap), self.engine
        if engine is None or engine.nets != nets:  # the first, or one of them was replaced
            how = () if engine is None else (engine.mode, engine.dtype)
            object.__setattr__(self, "engine", Engine(nets, *how))

    @property
    def device(self) -> torch.device:
        return next(self.unet.parameters()).device  # diffusers' own walks all modules, 2 ms

    @property
    def dtype(self) -> torch.dtype:
        return self.engine.dtype

    @property
    def mode(self) -> Mode:
        return self.engine.mode

    @property
    def adapted(self) -> Adapted | None:
        return self.engine.adapted

    def origin(self) -> dict[str, Any]:
        """Where imported weights came from, their licence, and how they were read; empty for other models."""
        names = ("source", "revision", "licence", "heads", "weights")
        return {key: self.about[key] for key in names if key in self.about}

    def encode_text(self, prompts: Sequence[str]) -> Condition:
        """Prompts as the U-Net's condition, one row each; AudioLDMWarning names words that are not read."""
        check_texts(prompts)
        for prompt in dict.fromkeys(prompts):
            longest, words = unread_words(self.token_encoder or self.clap, prompt)
            if words:
                ends = f"{' '.join(words[:8])[:80]!r} to {words[-1][-20:]!r}"
                why = f"the text encoder reads {longest} tokens; the last {len(words)} words of the prompt are not read"
                warnings.warn(f"{why}: {ends}.", AudioLDMWarning, stacklevel=2)
        tokens = Condition() if self.token_encoder is None else self.token_encoder.encode(prompts)
        if kind_of(self.unet) == "cross":
            return tokens
        return replace(tokens, film=self.engine.functions.embed_text(prompts))

    def denoiser(self, condition: Condition, *, controlled: int | None = None) -> Denoiser:
        """The U-Net under one condition as a function (x, sigma) -> x0; controls act on ``controlled`` first rows."""
        call = steered(self.engine.functions.unet, self.controls, self.unet, controlled)
        inside, schedule = condition.to(self.device, self.dtype), self.schedule.to(self.device)
        net = lambda x, t: call(x, t, inside)  # noqa: E731
        return as_denoiser(net, schedule, prediction=self.prediction, dtype=self.dtype)

    def denoisers(self, condition: Condition, empty: Condition) -> Pair:
        """The U-Net under two conditions of B rows, asked by one call of 2B; controls act on the first alone."""
        both = self.denoiser(condition.joined(empty), controlled=condition.count())
        return Pair(self.denoiser(condition), self.denoiser(empty, controlled=0), both)

    @torch.no_grad()
    def decode(self, latent: Tensor, *, seconds: float, refine_phase: int = 0) -> Tensor:
        """Scaled latent (B, C, T, F) to waves (B, N) of ``seconds``, brought to the mel in ``refine_phase`` rounds.

        Their noise is the same every time.   Raises AudioLDMError where the sound is not finite.
        """
        mel = self.engine.functions.decode(latent.to(self.dtype))
        sound = self.engine.functions.vocode(mel).float()
        if refine_phase:
            rng = torch.Generator().manual_seed(0)
            sound = refine(sound, mel.float(), self.spec, rounds=refine_phase, generator=rng)
        wave = sound[:, 0, : self.spec.samples(seconds)]
        if not bool(wave.isfinite().all()):
            why = "The model gave a sound with NaN or infinity."
            raise AudioLDMError(why, "Try --set dtype=float32.", code=1)
        return wave.cpu()


def steered(call: NetCall, controls: Sequence[Control], unet: LatentUNet, rows: int | None = None) -> NetCall:
    """``call`` under every control, in its first ``rows`` (None: all); with none it is ``call`` itself."""
    for control in controls:
        call = control.around(call, unet, rows)
    return call
