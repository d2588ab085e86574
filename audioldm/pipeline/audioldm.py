"""Text to sound: the one class that composes the nets with the sampler.

A model folder is ``model_index.json`` and one folder a component, as diffusers lays it out, plus ``audioldm.json``: the
AudioSpec, the defaults for generating, and the sha256 of every weight file.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor
from transformers import SpeechT5HifiGan

from audioldm.batch import Condition
from audioldm.diffusion.grids import GRIDS
from audioldm.diffusion.noise import PerSample
from audioldm.diffusion.noise import seeds as generators
from audioldm.diffusion.pairing import paired
from audioldm.diffusion.prediction import Denoiser, Prediction, as_denoiser
from audioldm.diffusion.samplers import SAMPLERS
from audioldm.diffusion.schedule import NoiseSchedule, audioldm
from audioldm.diffusion.table import choose
from audioldm.errors import AudioLDMError
from audioldm.nets.clap import SmallClap
from audioldm.nets.folder import load_component, read_json
from audioldm.nets.pretrained_clap import PretrainedClap
from audioldm.nets.unet import multiple_of
from audioldm.pipeline import longform
from audioldm.pipeline.engines import Engine, Mode, build_engine, check_mode, default_dtype
from audioldm.pipeline.guide import Guide
from audioldm.pipeline.mixing import together
from audioldm.pipeline.model_folder import COMPONENTS, check_hashes, load_clap, read_about, save_folder
from audioldm.pipeline.scheduler import read_scheduler
from audioldm.pipeline.spans import Span
from audioldm.signal.invert import griffin_lim
from audioldm.spec import AudioSpec

EMBEDDED = Path(__file__).parents[1] / "_embedded"
ORIGIN = ("source", "revision", "licence", "heads", "weights")
OnStep = Callable[[int, int], None]
"""(steps done, steps in all)"""


@dataclass
class AudioLDM:
    """A loaded model.

    >>> pipe = AudioLDM.from_pretrained()  # doctest: +SKIP
    >>> waves = pipe(["rain falling"], seeds=[0])  # doctest: +SKIP
    """

    unet: UNet2DConditionModel
    vae: AutoencoderKL
    vocoder: SpeechT5HifiGan
    clap: SmallClap | PretrainedClap
    spec: AudioSpec
    schedule: NoiseSchedule = field(default_factory=audioldm)
    prediction: Prediction = "eps"
    name: str = "unnamed"
    defaults: dict[str, Any] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)
    hashes: dict[str, str] = field(default_factory=dict)
    dtype: torch.dtype = torch.float32
    notice: str = ""
    """what whoever imports these weights must be told"""
    mode: Mode = "exact"
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
        from audioldm.pipeline.source import open_reference

        check_mode(mode)
        pipe = cls.from_folder(EMBEDDED) if ref in (None, "embedded") else open_reference(str(ref), **choices)
        return pipe.to(device, dtype, mode=mode)

    @classmethod
    def from_folder(cls, folder: Path) -> "AudioLDM":
        """Load a folder that ``save_pretrained`` wrote, float32 on the CPU."""
        read_json(folder / "model_index.json")
        about = read_about(folder / "audioldm.json")
        hashes = check_hashes(folder, about.get("sha256", {}))
        schedule, prediction = read_scheduler(folder / "scheduler")
        nets = {name: load_component(folder / name) for name in COMPONENTS}
        return cls(
            **nets,  # type: ignore[arg-type]
            clap=load_clap(folder),
            spec=about["spec"],
            schedule=schedule,
            prediction=prediction,
            name=about["name"],
            defaults=about["defaults"],
            about=about.get("about", {}),
            hashes=hashes,
        )

    def origin(self) -> dict[str, Any]:
        """Where imported weights came from, their licence, and how they were read; empty for other models."""
        return {key: self.about[key] for key in ORIGIN if key in self.about}

    def to(
        self, device: str | torch.device, dtype: torch.dtype | None = None, *, mode: Mode = "exact"
    ) -> "AudioLDM":
        """Move the nets and choose how they run (see ``engines``); CLAP and the sampler stay in float32.

        ``dtype`` is the type of U-Net, VAE and vocoder; for None it is the mode's own.   After weights were changed in
        place under mode "compiled", call it again.
        """
        check_mode(mode)
        self.mode, self.dtype = mode, dtype or default_dtype(mode)
        for net in (self.unet, self.vae, self.vocoder):
            cast = {} if net.dtype == self.dtype else {"dtype": self.dtype}  # diffusers warns of any cast
            net.to(device=device, **cast).eval()  # type: ignore[attr-defined]
        if mode != "exact":
            for net in (self.unet, self.vae):
                net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.clap.to(device).eval()
        self._engine = None
        return self

    @property
    def engine(self) -> Engine:
        """The nets as ``mode`` runs them; built anew where one of them was replaced."""
        nets = (self.unet, self.vae, self.vocoder)
        if self._engine is None or any(a is not b for a, b in zip(self._engine.nets, nets, strict=True)):
            self._engine = build_engine(self.mode, *nets)
        return self._engine

    def save_pretrained(self, folder: str | Path, *, dtype: torch.dtype | None = None) -> None:
        """Write the model folder; weights are cast to ``dtype`` if given."""
        save_folder(self, Path(folder), dtype=dtype)

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
        guide: Guide | None = None,
        polish: int | None = None,
        schedule: Sequence[Span] | None = None,
        loop: bool = False,
        batch_size: int | None = None,
        on_step: OnStep | None = None,
    ) -> Tensor:
        """Prompts (or Conditions of a row) and their seeds to waves (B, N); None comes from the model's ``defaults``.

        Sound longer than the model's own length is made in overlapped windows, so that memory stays that of one
        (``longform``).   ``schedule`` tells other words over time, instead of the prompts'.   ``loop`` makes the end go
        over into the begin, and rounds the length to whole latent frames.

        Every clip draws from its own seed.   On the CPU ``batch_size`` is 1 unless it is given, because matrix kernels
        round differently for other batch sizes: so the same seed gives the same bytes however many clips are asked for.
        """
        if len(prompts) != len(seeds):
            raise ValueError(f"{len(prompts)} prompts but {len(seeds)} seeds")
        given = {"seconds": seconds, "steps": steps, "sampler": sampler, "grid": grid, "guidance": guidance}
        given["polish"] = polish
        chosen = {"polish": 0, **self.defaults, **{k: v for k, v in given.items() if v is not None}}
        rounds = chosen.pop("polish")
        size = batch_size or (1 if self.device.type == "cpu" else len(prompts))
        waves, told = [], together(self, [negative, *prompts])
        spoken = [self.encode_text([span.prompt]) for span in schedule or ()]
        for start in range(0, len(prompts), size):
            part = slice(start, start + size)

            def report(done: int, steps: int, start: int = start) -> None:
                if on_step is not None:
                    on_step(start // size * steps + done, -(-len(prompts) // size) * steps)

            conditions = [told.rows(slice(1 + start, 1 + start + size))]
            if schedule is not None:
                conditions = [one.repeat(len(prompts[part])) for one in spoken]
            latent = self.sample(
                conditions,
                told.rows(slice(0, 1)).repeat(len(prompts[part])),
                seeds=seeds[part],
                guide=guide,
                schedule=schedule,
                loop=loop,
                on_step=report,
                **chosen,
            )
            length = latent.shape[2] * self.spec.seconds_per_latent if loop else chosen["seconds"]
            waves.append(longform.decode(self, latent, seconds=length, polish=rounds, loop=loop))
        return torch.cat(waves)

    def encode_text(self, prompts: Sequence[str]) -> Condition:
        """Prompts to what the U-Net is told; in mode "exact" each by itself, so that its length moves no other."""
        if self.mode != "exact":
            return Condition(film=self.clap.embed_text(prompts))
        return Condition(film=torch.cat([self.clap.embed_text([prompt]) for prompt in prompts]))

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
        guide: Guide | None = None,
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
        parts = [(guide or Guide()).steer(self, one, empty, guidance, sigmas) for one in conditions]
        shares = None if schedule is None else longform.span_shares(self, schedule, frames)
        denoise = longform.over_time(self, parts, frames, shares=shares, loop=loop)

        def report(i: int, *_: Any) -> None:
            if on_step is not None:
                on_step(i + 1, steps)

        x = noise() * sigmas[0].float()
        run = choose(SAMPLERS, sampler, "sampler")
        x = run(denoise, x, sigmas.float(), noise=noise, on_step=report)
        return x * self.schedule.alpha_of(sigmas[-1]).float()  # 1 unless the grid ends above 0

    def denoiser(self, condition: Condition) -> Denoiser:
        """The U-Net under one condition as a function (x, sigma) -> x0."""
        call, told = self.engine.unet, condition.to(self.device, self.dtype)
        return as_denoiser(
            lambda x, t: call(x, t, told),
            self.schedule.to(self.device),
            prediction=self.prediction,
            dtype=self.dtype,
        )

    def denoisers(self, condition: Condition, empty: Condition) -> tuple[Denoiser, Denoiser]:
        """The U-Net under two conditions (B each), answered by one call of 2B: for guidance, which asks both."""
        return paired(self.denoiser(condition.joined(empty)))

    def decode(self, latent: Tensor, *, seconds: float, polish: int = 0) -> Tensor:
        """Scaled latent to waves (B, N), trimmed to ``seconds``.

        ``polish`` rounds of Griffin-Lim bring the vocoder's loudness in every band to the mel's; a small vocoder needs
        it.   Raises AudioLDMError where the sound is not finite.
        """
        mel = self.engine.decode(latent.to(self.dtype))
        sound = self.engine.vocode(mel).float()
        if polish:
            sound = griffin_lim(mel.float(), self.spec, iterations=polish, start=sound)
        wave = sound[:, 0, : self.spec.samples(seconds)].cpu()
        if not bool(wave.isfinite().all()):
            raise AudioLDMError(
                "The model gave a sound with NaN or infinity.", "Try --dtype float32.", code=1
            )
        return wave
