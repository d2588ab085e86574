"""Sound of any length from a net of one length: windows along T of x (B, C, T, F), denoised one at a time and blended.

The x0 of a frame is the weighted mean of what its windows say: Bar-Tal et al. 2023 (MultiDiffusion, arXiv:2302.08113).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import pairwise
from math import ceil, pi

import torch
from torch import Tensor

from audioldm.diffusion.prediction import Denoiser

# first latent frame of the U-Net's input, and latent frames of the whole clip; None: the clip itself
WINDOW: ContextVar[tuple[int, int] | None] = ContextVar("WINDOW", default=None)


@contextmanager
def window_at(begin: int, frames: int) -> Iterator[None]:
    """Within, the U-Net's input is a window of a clip of ``frames`` latent frames; past its end it begins anew."""
    token = WINDOW.set((begin, frames))
    try:
        yield
    finally:
        WINDOW.reset(token)


def starts(length: int, window: int, stride: int, *, circular: bool = False) -> list[int]:
    """First frames of even windows over ``length``, at most ``stride`` apart; circular ones run over its end."""
    if circular:
        if window > length:
            raise ValueError(f"a circle of {length} frames is shorter than its window of {window}.")
        count = max(2, ceil(length / stride))
        return [round(i * length / count) for i in range(count)]
    if length <= window:
        return [0]
    count = ceil((length - window) / stride) + 1
    return [round(i * (length - window) / (count - 1)) for i in range(count)]


def plateau(size: int) -> Tensor:
    """Weights (size,) of parts that agree inside: near 0 over a sixteenth at both ends, sin^2 ramps of an eighth, 1."""
    place = torch.arange(size) + 0.5
    inside = torch.minimum(place, size - place) - size // 16
    return ((inside / max(1, size // 8)).clamp(0, 1) * pi / 2).sin().square().clamp(min=1e-6)


def blend(
    length: int, begins: Sequence[int], weights: Tensor, part: Callable[[int], Tensor], *,
    dim: int, scale: int = 1,
) -> Tensor:  # fmt: skip
    """The weighted mean of parts, each as long along ``dim`` as ``weights`` (window * scale,); wraps at the end."""
    total, mass = torch.zeros(()), torch.zeros(length * scale)
    for begin in begins:
        piece = part(begin).transpose(dim, -1)
        if not total.ndim:
            total = piece.new_zeros(*piece.shape[:-1], length * scale)
        index = (torch.arange(len(weights)) + begin * scale) % (length * scale)
        total.index_add_(-1, index.to(piece.device), piece * weights.to(piece))
        mass.index_add_(0, index, weights)
    return (total / mass.to(total)).transpose(dim, -1).contiguous()


def windowed(parts: Sequence[Denoiser], shares: Tensor, *, window: int, circular: bool = False) -> Denoiser:
    """One denoiser for any T from denoisers that see ``window`` frames; part p counts shares[p] (P, T) in each frame.

    Windows are at most half of one apart and count by sin^2; shares sum to 1, and a part is called only where it
    counts.   One part and one window is that part, bit by bit.   ``circular`` is a loop, of T >= window.
    """
    length = shares.shape[1]
    begins, size = starts(length, window, max(1, window // 2), circular=circular), min(window, length)
    weights = ((torch.arange(size) + 0.5) * pi / size).sin() ** 2 if len(begins) > 1 else torch.ones(size)

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        def at(begin: int) -> Tensor:
            index = (torch.arange(size) + begin) % length
            inside = x[:, :, index.to(x.device)]
            pairs = zip(parts, shares[:, index], strict=True)
            here = [(part, share) for part, share in pairs if bool(share.any())]
            with window_at(begin, length):
                if len(here) == 1:
                    return here[0][0](inside, sigma)
                answers = (share.to(x)[:, None] * part(inside, sigma) for part, share in here)
                return sum(answers, torch.zeros_like(inside))

        return at(0) if len(begins) == 1 else blend(length, begins, weights, at, dim=2)

    return denoise


class Front:
    """Answers in windows, kept: a run over the first frames that a run over more of them goes on from.

    A sampler that asks once a level gives there what it gives over all frames, bit by bit: every window on which they
    depend was asked, two at the last level, one more at each level above.   The rest is 0.
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


def shares_of(spans: Sequence[tuple[float, float]], frames: int, frame_seconds: float, fade: float) -> Tensor:
    """How much each of P spans (from, to) in seconds counts in every frame, ``fade`` seconds across: (P, frames)."""
    middle = (torch.arange(frames) + 0.5) * frame_seconds
    rises = [((middle - begin) / max(fade, 1e-6) + 0.5).clamp(0, 1) for begin, _ in spans[1:]]
    edges = [torch.ones(frames), *rises, torch.zeros(frames)]
    return torch.stack([now - nxt for now, nxt in pairwise(edges)])
