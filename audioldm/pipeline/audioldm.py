"""Text to sound: a model that is called with prompts."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from audioldm.batch import Condition
from audioldm.components import Components
from audioldm.convert.model import save_model
from audioldm.convert.reference import open_model
from audioldm.diffusion.samplers import SAMPLERS
from audioldm.diffusion.windows import Front, plateau, starts
from audioldm.engines import Mode, check_mode
from audioldm.errors import AudioLDMError
from audioldm.pipeline import adapters
from audioldm.pipeline.adapters import Named
from audioldm.pipeline.conditions import Conditions, encode
from audioldm.pipeline.longform import decode, tiles, window_frames
from audioldm.pipeline.run import Run, resample_silent
from audioldm.pipeline.spans import Span


@dataclass(frozen=True, eq=False)
class AudioLDM(Components):
    """A loaded model."""

    @torch.no_grad()
    @resample_silent
    def __call__(
        self, prompts: str | Condition | Sequence[str | Condition], *, seeds: Sequence[int],
        timeline: Sequence[Span] | None = None, loop: bool = False, batch_size: int | None = None, **options: Any,
    ) -> Tensor:  # fmt: skip
        """Prompts (or conditions of one row) and a seed for each to waves (B, N).

        ``options`` are the settings of ``Sampling``, None the model's ``defaults``.   Every clip may follow a
        ``timeline`` instead of its prompt.   ``loop`` lets the end go over into the begin, and rounds the length to
        whole latent frames.   Sounds of any length are made in windows.   Raises AudioLDMError.
        """
        run = Run.of(self, seeds, loop=loop, **options)
        # 1. Encode the prompts, and the one to steer away from.
        frames = run.noise.shape[1]
        conditions = encode(self, prompts, run.settings.negative, timeline, frames=frames, seeds=seeds)
        # 2. Draw noise for the latent, each clip from its own seed.
        noise = run.start()
        # 3. Sample: step by step down the noise levels, under the conditions.
        latent = run.sample(run.denoiser(conditions, loop=loop), noise)
        # 4. Decode: the latent to a mel, and the mel to a wave.
        seconds = None if loop else run.settings.seconds
        return decode(self, latent, seconds=seconds, refine_phase=run.settings.refine_phase, loop=loop)

    @torch.no_grad()
    def stream(
        self, prompt: str, *, seed: int = 0, timeline: Sequence[Span] | None = None, **options: Any
    ) -> Iterator[Tensor]:
        """The pieces (N,) of one sound, each as soon as nothing can change it; joined, they are the sound of a call.

        The first waits for n (n + 3) / 2 calls of the net in n steps.   Raises AudioLDMError for samplers of more.
        """
        run = Run.of(self, [seed], **options)
        settings, frames, window = run.settings, run.noise.shape[1], window_frames(self)
        if SAMPLERS[settings.sampler.partition(":")[0]].calls != "1":
            raise AudioLDMError(f"sampler={settings.sampler} cannot stream.", "Use one of one call a step.")
        conditions = encode(self, [prompt], settings.negative, timeline, frames=frames)
        if frames <= window:
            latent = run.sample(run.denoiser(conditions), run.start())
            yield decode(self, latent, seconds=settings.seconds, refine_phase=settings.refine_phase)[0]
            return
        front = Front(starts(frames, window, max(1, window // 2)), window, run.sigmas)
        denoise = run.denoiser(conditions, wrap=front.kept)
        begins, scale = tiles(frames, window), self.spec.stride * self.spec.hop
        weights, (total, mass) = plateau(window * scale), torch.zeros(2, frames * scale)
        for begin in begins:
            mass[begin * scale :][: window * scale] += weights
        for begin, end in pairwise([*begins, frames]):
            front.reach(begin + window)
            again = Run.of(self, [seed], **options)  # which draws the same noise
            latent = again.sample(denoise, again.start())[:, :, begin : begin + window].contiguous()
            seconds = window * scale / self.spec.rate
            piece = self.decode(latent, seconds=seconds, refine_phase=settings.refine_phase)
            total[begin * scale :][: window * scale] += piece[0] * weights
            done = slice(begin * scale, min(end * scale, self.spec.samples(settings.seconds)))
            yield total[done] / mass[done]

    def sample(
        self, condition: Condition, empty: Condition, *, seeds: Sequence[int], **options: Any
    ) -> Tensor:
        """Scaled latents (B, C, T, F), float32, under conditions of B rows; ``empty`` is what to steer away from."""
        run = Run.of(self, seeds, **options)
        return run.sample(run.denoiser(Conditions((condition,), empty)), run.start())

    @classmethod
    def from_pretrained(
        cls, ref: str | Path | None = None, *, device: str = "cpu",
        dtype: torch.dtype | None = None, mode: Mode = "exact", **choices: Any,
    ) -> "AudioLDM":  # fmt: skip
        """Load a model folder, a diffusers folder or hub id, a ``.ckpt``; ``choices``: ``convert.model.Choices``.

        None is the embedded model.   Raises AudioLDMError.
        """
        check_mode(mode)
        return cls(**vars(open_model(ref, **choices))).to(device, dtype, mode=mode)

    def to(
        self, device: str | torch.device, dtype: torch.dtype | None = None, *, mode: Mode = "exact"
    ) -> "AudioLDM":
        """Move the nets and choose how they run (see ``engines``); the text encoders and the sampler stay in float32.

        ``dtype`` None is the mode's own.   After weights were changed in a mode but "exact", call it again.
        """
        self.engine.to(device, dtype, mode)
        if self.token_encoder is not None:
            self.token_encoder.to(device).eval()
        return self

    def adapt(self, *named: Named) -> "AudioLDM":
        """Run with these adapters, "FILE" or "FILE:WEIGHT", and no others; with none it is the model itself again."""
        adapters.adapt(self, named)
        return self

    def save_pretrained(self, folder: str | Path, *, dtype: torch.dtype | None = None) -> None:
        """Write the model folder; weights are cast to ``dtype`` if given."""
        save_model(self, Path(folder), dtype=dtype)
