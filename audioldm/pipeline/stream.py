"""Long sound handed out while the rest of it is made.   N samples, C channels, T latent frames, F bins."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from audioldm.components import Components
from audioldm.diffusion.prediction import Denoiser
from audioldm.diffusion.samplers import SAMPLERS
from audioldm.diffusion.windows import WINDOW, starts
from audioldm.errors import AudioLDMError
from audioldm.pipeline.conditions import encode
from audioldm.pipeline.longform import decode, tile_weights, window_frames
from audioldm.pipeline.run import Run
from audioldm.pipeline.spans import Span


@torch.no_grad()
def stream(
    parts: Components, prompt: str, *, seed: int = 0, timeline: Sequence[Span] | None = None, **options: Any
) -> Iterator[Tensor]:
    """The pieces (N,) of one sound, each as soon as nothing can change it; joined, they are the sound of a call.

    The windows of ``longform`` are gone through from the left: the first piece waits for n (n + 3) / 2 calls of the net
    in n steps.   No silent clip is drawn again.   Raises AudioLDMError for samplers that ask more than once a step.
    """
    run = Run.of(parts, [seed], **options)
    settings, frames, window = run.settings, run.noise.shape[1], window_frames(parts)
    if SAMPLERS[settings.sampler.partition(":")[0]].calls != "1":
        why = f"sampler={settings.sampler} cannot stream."
        raise AudioLDMError(why, "Use one of one call a step, such as ddim.")
    conditions = encode(parts, [prompt], settings.negative, timeline)
    if frames <= window:
        latent = run.sample(run.denoiser(conditions), run.start())
        yield decode(parts, latent, seconds=settings.seconds, refine_phase=settings.refine_phase)[0]
        return
    front = Front(starts(frames, window, max(1, window // 2)), window, run.sigmas)
    denoise = run.denoiser(conditions, wrap=front.kept)
    scale = parts.spec.stride * parts.spec.hop
    weights, stride = tile_weights(window, scale)
    begins = starts(frames, window, min(stride, frames // 2))
    total, mass = torch.zeros(2, frames * scale)
    for begin in begins:
        mass[begin * scale : (begin + window) * scale] += weights
    for begin, end in pairwise([*begins, frames]):
        front.reach(begin + window)
        again = Run.of(parts, [seed], **options)  # which draws the same noise
        latent = again.sample(denoise, again.start())[:, :, begin : begin + window].contiguous()
        seconds = window * scale / parts.spec.rate
        piece = parts.decode(latent, seconds=seconds, refine_phase=settings.refine_phase)[0]
        total[begin * scale : (begin + window) * scale] += piece * weights
        done = slice(begin * scale, min(end * scale, parts.spec.samples(settings.seconds)))
        yield total[done] / mass[done]


class Front:
    """Answers in windows, kept: a run over the first frames that a run over more of them goes on from.

    A sampler that asks once a level gives there what it gives over all frames, bit by bit: every window that those
    frames depend on was asked, two at the last level of ``sigmas``, one more at each level above.   The rest is 0.
    """

    def __init__(self, begins: Sequence[int], window: int, sigmas: Tensor) -> None:
        self.begins, self.window, self.levels = begins, window, sigmas[:-1].float().tolist()
        self.last: dict[float, int] = {}

    def reach(self, frames: int) -> None:
        """From now on the first ``frames`` frames are wanted."""
        for level in reversed(self.levels):
            self.last[level] = max(begin for begin in self.begins if begin < frames)
            frames = self.last[level] + self.window

    def kept(self, denoise: Denoiser) -> Denoiser:
        """``denoise`` within the windows that are needed, each asked once a level."""
        answers: dict[tuple[float, int], Tensor] = {}

        def answer(x: Tensor, sigma: Tensor) -> Tensor:
            level, (begin, _) = float(sigma[0]), WINDOW.get() or (0, 0)
            if begin > self.last[level]:
                return torch.zeros_like(x)
            if (level, begin) not in answers:
                answers[level, begin] = denoise(x, sigma)
            return answers[level, begin]

        return answer
