"""YIN: the fundamental frequency of each frame.   de Cheveigné & Kawahara 2002.   T frames, W samples of one."""

import torch
from torch import Tensor

THRESHOLD = 0.15
"""of the normalised difference below which a frame is periodic"""


def yin(frames: Tensor, rate: int, *, low: float = 50.0, high: float = 1500.0) -> Tensor:
    """Frames (T, W) to Hz (T,), 0 where nothing between ``low`` and ``high`` is periodic.

    Needs W > 2 rate / low for the lowest notes; shorter frames raise ``low``.

    >>> time = torch.arange(1024) / 16000
    >>> round(yin(torch.sin(2 * torch.pi * 220 * time)[None], 16000).item())
    220
    """
    width = frames.shape[-1] // 2
    longest, shortest = min(width - 2, int(rate / low)), max(2, int(rate / high))
    x = frames.double()
    # difference function (eq. 6) as energies minus twice the correlation, which an FFT gives
    size = 2 * frames.shape[-1]
    head = torch.fft.rfft(x[:, :width], size)
    correlation = torch.fft.irfft(head.conj() * torch.fft.rfft(x, size), size)[:, :width]
    power = torch.nn.functional.pad(x.square().cumsum(-1), (1, 0))
    energy = power[:, width : 2 * width] - power[:, :width]
    difference = (energy[:, :1] + energy - 2 * correlation).clamp(min=0)
    lag = torch.arange(width, dtype=torch.float64)
    mean = difference.cumsum(-1) / lag.clamp(min=1)
    normal = torch.where(lag > 0, difference / mean.clamp(min=1e-12), torch.ones_like(difference))  # eq. 8
    inside = normal[:, shortest : longest + 1]
    below = inside < THRESHOLD
    valley = torch.zeros_like(below)
    valley[:, :-1] = inside[:, :-1] <= inside[:, 1:]
    first = (
        below & valley
    )  # the first dip under the threshold (step 4), not the deepest: that may be an octave low
    found = first.any(-1) & (energy[:, 0] > 1e-9)
    place = first.float().argmax(-1) + shortest
    a, b, c = (normal.gather(1, (place + step)[:, None])[:, 0] for step in (-1, 0, 1))
    bend = a - 2 * b + c
    shift = torch.where(bend.abs() > 1e-12, 0.5 * (a - c) / bend, torch.zeros_like(bend)).clamp(
        -1, 1
    )  # step 5
    return torch.where(found, rate / (place + shift), torch.zeros_like(shift)).float()
