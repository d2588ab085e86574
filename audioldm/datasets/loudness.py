"""Loudness by ITU-R BS.1770-4, of waves of any length.  N samples."""

from math import cos, log10, pi, sin, sqrt

import numpy as np
import numpy.typing as npt
import torch
from scipy.signal import sosfilt
from torch import Tensor

STEPS = 4  # tenths of a second in one of the standard's gates; a shorter clip has its plain RMS instead
BIAS, ABSOLUTE_GATE, RELATIVE_GATE = -0.691, -70.0, -10.0


class Loudness:
    """Loudness of one channel that arrives in blocks; of each tenth of a second the power is kept."""

    def __init__(self, rate: int) -> None:
        self.step, self.filters, self.state = max(1, round(rate / 10)), k_weighting(rate), np.zeros((2, 2))
        self.rest, self.powers = np.zeros(0), list[float]()
        self.energy, self.samples = 0.0, 0

    def add(self, block: Tensor) -> None:
        """Go on by a block (n,)."""
        if not len(block):
            return
        self.energy += float(torch.linalg.vector_norm(block, dtype=torch.float64).square())
        self.samples += len(block)
        wave, self.state = sosfilt(self.filters, block.double().cpu().numpy(), zi=self.state)
        wave = np.concatenate([self.rest, wave])
        steps = wave[: len(wave) // self.step * self.step].reshape(-1, self.step)
        # numbers, not an array: small ones among large ones keep the heap from shrinking
        self.powers += np.square(steps).mean(1).tolist()
        self.rest = wave[steps.size :]

    def value(self) -> float:
        """LUFS of all that was added; RMS in dB of full scale if the gates leave nothing; silence is -inf."""
        powers = torch.tensor(self.powers, dtype=torch.float64)
        if len(powers) >= STEPS:
            powers = powers.unfold(0, STEPS, 1).mean(1)
            levels = BIAS + 10 * powers.log10()
            loud = levels > ABSOLUTE_GATE
            if loud.any():
                loud &= levels > BIAS + decibels(float(powers[loud].mean())) + RELATIVE_GATE
            if loud.any():
                return BIAS + decibels(float(powers[loud].mean()))
        return decibels(self.energy / self.samples) if self.samples else -float("inf")


def k_weighting(rate: int) -> npt.NDArray[np.float64]:
    """The standard's filters as sections (2, 6): a shelf of 4 dB above 1.5 kHz, nothing below 38 Hz."""
    turn, a = 2 * pi * min(1500 / rate, 0.4), 10 ** (4 / 40)
    more, less, slope = (a + 1) * cos(turn), (a - 1) * cos(turn), sqrt(2 * a) * sin(turn)
    shelf = [a * (a + 1 + less + slope), -2 * a * (a - 1 + more), a * (a + 1 + less - slope)]
    shelf += [a + 1 - less + slope, 2 * (a - 1 - more), a + 1 - less - slope]
    turn = 2 * pi * 38 / rate
    pass_ = (1 + cos(turn)) / 2
    sections = np.array([shelf, [pass_, -2 * pass_, pass_, 1 + sin(turn), -2 * cos(turn), 1 - sin(turn)]])
    return np.asarray(sections / sections[:, 3:4])


def decibels(power: float) -> float:
    return 10 * log10(power) if power > 0 else -float("inf")


def loudness(wave: Tensor, rate: int) -> float:
    """Loudness of (N,) in LUFS; of clips below 0.4 s, and those that the gate empties, the RMS in dB of full scale."""
    meter = Loudness(rate)
    meter.add(wave)
    return meter.value()
