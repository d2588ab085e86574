"""Long sound handed out while the rest of it is made.   N samples, C channels, T latent frames, F bins."""

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import Unpack

import torch
from torch import Tensor

from audioldm.components import Components
from audioldm.diffusion.samplers import SAMPLERS
from audioldm.diffusion.windows import Front, starts
from audioldm.errors import AudioLDMError
from audioldm.pipeline.conditions import encode
from audioldm.pipeline.longform import decode, tile_weights, window_frames
from audioldm.pipeline.run import Options, Run
from audioldm.pipeline.spans import Span


@torch.no_grad()
def stream(
    parts: Components,
    prompt: str,
    *,
    seed: int = 0,
    timeline: Sequence[Span] | None = None,
    **options: Unpack[Options],
) -> Iterator[Tensor]:
    """The pieces (N,) of one sound, each as soon as nothing can change it; joined, they are the sound of a call.

    The windows of ``longform`` are gone through from the left: the first piece waits for n (n + 3) / 2 calls of the net
    in n steps.   No silent clip is drawn again.   Raises AudioLDMError for samplers that ask more than once a step.
    """
    # each run draws the same noise
    run = partial(Run.of, parts, [seed], **options)
    first = run()
    settings, frames, window = first.settings, first.noise.shape[1], window_frames(parts)
    if SAMPLERS[settings.sampler.partition(":")[0]].calls != "1":
        why = f"sampler={settings.sampler} cannot stream."
        raise AudioLDMError(why, "Use one of one call a step, such as ddim.")
    conditions = encode(parts, [prompt], settings.negative, timeline)
    if frames <= window:
        latent = first.sample(first.denoiser(conditions), first.start())
        yield decode(parts, latent, seconds=settings.seconds, refine_phase=settings.refine_phase)[0]
        return
    front = Front(starts(frames, window, max(1, window // 2)), window, first.sigmas)
    denoise = first.denoiser(conditions, wrap=front.kept)
    scale = parts.spec.stride * parts.spec.hop
    weights, stride = tile_weights(window, scale)
    begins = starts(frames, window, min(stride, frames // 2))
    total, mass = torch.zeros(1, frames * scale), torch.zeros(frames * scale)
    for begin in begins:
        mass[begin * scale : (begin + window) * scale] += weights
    for begin, end in pairwise([*begins, frames]):
        front.reach(begin + window)
        again = run()
        latent = again.sample(denoise, again.start())[:, :, begin : begin + window].contiguous()
        seconds = window * scale / parts.spec.rate
        piece = parts.decode(latent, seconds=seconds, refine_phase=settings.refine_phase)
        total[:, begin * scale : (begin + window) * scale] += piece * weights
        done = slice(begin * scale, min(end * scale, parts.spec.samples(settings.seconds)))
        yield (total[0, done] / mass[done]).clone()
