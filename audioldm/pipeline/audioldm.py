"""Text to sound: the one class that composes the nets with the sampler.

A model folder is ``model_index.json`` and one folder a component, as diffusers lays it out, plus ``audioldm.json``: the
AudioSpec, the defaults for generating, and the sha256 of every weight file.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn
from transformers import SpeechT5HifiGan

from audioldm.batch import Condition
from audioldm.control.steer import Control, steered
from audioldm.diffusion.grids import GRIDS
from audioldm.diffusion.noise import PerSample
from audioldm.diffusion.noise import seeds as generators
from audioldm.diffusion.pairing import paired
from audioldm.diffusion.prediction import Denoiser, Prediction, as_denoiser
from audioldm.diffusion.samplers import SAMPLERS
from audioldm.diffusion.schedule import NoiseSchedule, audioldm
from audioldm.diffusion.table import choose
from audioldm.errors import AudioLDMError
from audioldm.nets.clap import NoClap, SmallClap
from audioldm.nets.text_encoder import AudioLDM2TextEncoder
from audioldm.nets.machine import release_weight_pages
from audioldm.nets.clap import PretrainedClap
from audioldm.nets.text_encoder import T5TextEncoder
from audioldm.nets.unet import kind_of, multiple_of
from audioldm.pipeline import adapting, longform, model_folder
from audioldm.pipeline.adapting import Adapted, Named
from audioldm.pipeline.draws import OnStep, resample_silent
from audioldm.pipeline.engines import Engine, Mode, build_engine, check_mode, default_dtype, warn_of_emulation
from audioldm.pipeline.guide import GuidanceConfig
from audioldm.pipeline.mixing import together
from audioldm.pipeline.spans import Span
from audioldm.signal.invert import refine_phase as polished
from audioldm.spec import AudioSpec

EMBEDDED = Path(__file__).parents[1] / "_embedded"
ORIGIN = ("source", "revision", "licence", "heads", "weights")


@dataclass
class AudioLDM:
    """A loaded model.

    >>> pipe = AudioLDM.from_pretrained()  # doctest: +SKIP
    >>> waves = pipe(["rain falling"], seeds=[0])  # doctest: +SKIP
    """

    unet: UNet2DConditionModel
    vae: AutoencoderKL
    vocoder: SpeechT5HifiGan
    clap: SmallClap | PretrainedClap | NoClap
    spec: AudioSpec
    schedule: NoiseSchedule = field(default_factory=audioldm)
    prediction: Prediction = "eps"
    name: str = "unnamed"
    defaults: dict[str, Any] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)
    hashes: dict[str, str] = field(default_factory=dict)
    words: T5TextEncoder | AudioLDM2TextEncoder | None = None
    """what reads prompts word by word, for a U-Net that attends to tokens"""
    dtype: torch.dtype = torch.float32
    notice: str = ""
    """what whoever imports these weights must be told"""
    mode: Mode = "exact"
    adapted: Adapted | None = field(default=None, repr=False, compare=False)
    controls: tuple[Control, ...] = ()
    """maps that every sound follows, and sounds that it is like; ``dataclasses.replace`` gives a pipe with others"""
    _engine: Engine | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def device(self) -> torch.device:
        """Where the U-Net is."""
        return self.unet.device

    @classmethod
    def from_pretrained(
        cls,
        ref: str | Path | None = None,
        *,
        device: str = "cpu",
        dtype: torch.dtype | None = None,
        mode: Mode = "exact",
        **choices: Any,
    ) -> "AudioLDM":
        """Load a model: None or "embedded", a model folder, a diffusers folder or hub id, an original ``.ckpt``.

        ``choices`` are those of ``pipeline.published.Choices``: heads, weights, tokenizer.   Raises AudioLDMError.
        """
        from audioldm.convert.reference import open_reference

        check_mode(mode)
        pipe = cls.from_folder(EMBEDDED) if ref in (None, "embedded") else open_reference(str(ref), **choices)
        return pipe.to(device, dtype, mode=mode)

    @classmethod
    def from_folder(cls, folder: Path) -> "AudioLDM":
        """Load a folder that ``save_pretrained`` wrote, float32 on the CPU."""
        return cls(**model_folder.load_folder(folder))

    def origin(self) -> dict[str, Any]:
        """Where imported weights came from, their licence, and how they were read; empty for other models."""
        return {key: self.about[key] for key in ORIGIN if key in self.about}

    def to(
        self, device: str | torch.device, dtype: torch.dtype | None = None, *, mode: Mode = "exact"
    ) -> "AudioLDM":
        """Move the nets and choose how they run (see ``engines``); the text encoders and the sampler stay in float32.

        ``dtype`` is the type of U-Net, VAE and vocoder; for None it is the mode's own.   After weights were changed in
        place under mode "split" or "compiled", call it again.
        """
        check_mode(mode)
        self.mode, self.dtype = mode, dtype or default_dtype(mode)
        warn_of_emulation(device, self.dtype)
        for net in (self.unet, self.vae, self.vocoder):
            nn.Module.to(net, device=device, dtype=self.dtype).eval()  # diffusers' own warns of any cast
        if mode not in ("exact", "split"):
            for net in (self.unet, self.vae):
                net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.clap.to(device).eval()
        if self.words is not None:
            self.words.to(device).eval()
        self._engine = None
        return self

    @property
    def engine(self) -> Engine:
        """The nets as ``mode`` runs them; built anew where one of them was replaced."""
        nets = (self.unet, self.vae, self.vocoder)
        if self._engine is None or any(a is not b for a, b in zip(self._engine.nets, nets, strict=True)):
            self._engine = build_engine(self.mode, *nets)
        return self._engine

    def adapt(self, *adapters: Named) -> "AudioLDM":
        """Run with these adapters, "FILE" or "FILE:WEIGHT", and no others; with none it is the model itself again."""
        adapting.adapt(self, adapters)
        return self

    def save_pretrained(self, folder: str | Path, *, dtype: torch.dtype | None = None) -> None:
        """Write the model folder; weights are cast to ``dtype`` if given."""
        model_folder.save_folder(self, Path(folder), dtype=dtype)

    @torch.no_grad()
    def __call__(
        self,
        prompts: Sequence[str | Condition],
        *,
        seeds: Sequence[int],
        seconds: float | None = None,
        steps: int | None = None,
        sampler: str | None = None,
        grid: str | None = None,
        guidance: float | None = None,
        negative: str = "",
        guide: GuidanceConfig | None = None,
        refine_phase: int | None = None,
        retry_silent: int | None = None,
        schedule: Sequence[Span] | None = None,
        loop: bool = False,
        batch_size: int | None = None,
        on_step: OnStep | None = None,
    ) -> Tensor:
        """Prompts (or Conditions of a row) and their seeds to waves (B, N); None comes from the model's ``defaults``.

        Sound longer than the model's own length is made in overlapped windows, so that memory stays that of one
        (``longform``).   ``schedule`` tells other words over time, instead of the prompts'.   ``loop`` makes the end go
        over into the begin, and rounds the length to whole latent frames.

        ``retry_silent``: how often a clip that came out silent is drawn again (``draws``); never under controls, which
        may ask for silence.

        Every clip draws from its own seed.   On the CPU ``batch_size`` is 1 unless it is given, because matrix kernels
        round differently for other batch sizes: so the same seed gives the same bytes however many clips are asked for.
        """
        if len(prompts) != len(seeds):
            raise ValueError(f"{len(prompts)} prompts but {len(seeds)} seeds")
        given = {"seconds": seconds, "steps": steps, "sampler": sampler, "grid": grid, "guidance": guidance}
        given |= {"refine_phase": refine_phase, "retry_silent": retry_silent}
        chosen = {"refine_phase": 0, "retry_silent": 0, **self.defaults}
        chosen |= {name: value for name, value in given.items() if value is not None}
        rounds, retry_silent = chosen.pop("refine_phase"), chosen.pop("retry_silent")
        size = batch_size or (1 if self.device.type == "cpu" else len(prompts))
        told = together(self, [negative, *prompts])
        spoken = [self.encode_text([span.prompt]) for span in schedule or ()]
        release_weight_pages(self.clap)

        def draw(rows: list[int], seeds: list[int], on_step: OnStep | None) -> Tensor:
            words = told.rows(torch.tensor(rows) + 1).trimmed()
            latent = self.sample(
                [words] if schedule is None else [one.repeat(len(rows)) for one in spoken],
                told.rows(slice(0, 1)).trimmed().repeat(len(rows)),
                seeds=seeds,
                guide=guide,
                schedule=schedule,
                loop=loop,
                on_step=on_step,
                **chosen,
            )
            length = latent.shape[2] * self.spec.seconds_per_latent if loop else chosen["seconds"]
            return longform.decode(self, latent, seconds=length, refine_phase=rounds, loop=loop)

        retry_silent = 0 if self.controls else retry_silent
        return resample_silent(draw, seeds, size=size, retry_silent=retry_silent, on_step=on_step)

    def encode_text(self, prompts: Sequence[str]) -> Condition:
        """Prompts to what the U-Net is told; in the float32 modes each by itself, so that its length moves no other."""
        told = Condition() if self.words is None else self.words.encode(prompts)
        if kind_of(self.unet) == "cross":
            return told
        if self.mode not in ("exact", "split"):
            return replace(told, film=self.clap.embed_text(prompts))
        return replace(told, film=torch.cat([self.clap.embed_text([prompt]) for prompt in prompts]))

    def sample(
        self,
        told: Condition | Sequence[Condition],
        empty: Condition,
        *,
        seeds: Sequence[int],
        seconds: float,
        steps: int,
        sampler: str,
        grid: str,
        guidance: float,
        guide: GuidanceConfig | None = None,
        schedule: Sequence[Span] | None = None,
        loop: bool = False,
        on_step: OnStep | None = None,
    ) -> Tensor:
        """Noise to a scaled latent (B, C, T, F), float32, under one condition, or one for each span of ``schedule``.

        ``guide`` None is plain classifier-free guidance.
        """
        channels, frames, bins = self.spec.latent_shape(seconds, multiple_of(self.unet))
        frames = longform.loop_frames(self, seconds) if loop else frames
        shape = (channels, frames, bins)
        noise = PerSample(generators(seeds), shape, device=self.device)
        sigmas = choose(GRIDS, grid, "grid")(self.schedule, steps)  # on the CPU: no step waits to read it
        conditions = [told] if isinstance(told, Condition) else told
        parts = [(guide or GuidanceConfig()).steer(self, one, empty, guidance, sigmas) for one in conditions]
        shares = None if schedule is None else longform.span_shares(self, schedule, frames)
        denoise = longform.over_time(self, parts, frames, shares=shares, loop=loop)

        def report(i: int, *_: Any) -> None:
            if on_step is not None:
                on_step(i + 1, steps)

        x = noise() * sigmas[0].float()
        run = choose(SAMPLERS, sampler, "sampler")
        x = run(denoise, x, sigmas.float(), noise=noise, on_step=report)
        return x * self.schedule.alpha_of(sigmas[-1]).float()  # 1 unless the grid ends above 0

    def denoiser(self, condition: Condition, *, controlled: int | None = None) -> Denoiser:
        """The U-Net under one condition as a function (x, sigma) -> x0; controls act on ``controlled`` first rows."""
        call = steered(self.engine.unet, self.controls, self.unet, controlled)
        told = condition.to(self.device, self.dtype)
        return as_denoiser(
            lambda x, t: call(x, t, told),
            self.schedule.to(self.device),
            prediction=self.prediction,
            dtype=self.dtype,
        )

    def denoisers(self, condition: Condition, empty: Condition) -> tuple[Denoiser, Denoiser]:
        """The U-Net under two conditions (B each), answered by one call of 2B: for guidance, which asks both.

        Controls act on the first alone: guidance then strengthens them as it does the words.
        """
        both = condition.joined(empty)
        return paired(self.denoiser(both, controlled=both.count() // 2))

    def decode(self, latent: Tensor, *, seconds: float, refine_phase: int = 0) -> Tensor:
        """Scaled latent to waves (B, N), trimmed to ``seconds``.

        ``refine_phase`` rounds bring the sound to the mel; a small vocoder needs it.   Their noise is the same every
        time, so this is a function of the latent.   Raises AudioLDMError where the sound is not finite.
        """
        mel = self.engine.decode(latent.to(self.dtype))
        sound = self.engine.vocode(mel).float()
        if refine_phase:
            sound = polished(
                sound, mel.float(), self.spec, rounds=refine_phase, generator=torch.Generator().manual_seed(0)
            )
        wave = sound[:, 0, : self.spec.samples(seconds)].cpu()
        if not bool(wave.isfinite().all()):
            raise AudioLDMError(
                "The model gave a sound with NaN or infinity.", "Try --dtype float32.", code=1
            )
        return wave
