"""Loudness by ITU-R BS.1770-4, of waves of any length.  N samples."""

from math import isfinite, log10, sqrt

import torch
import torchaudio.functional as audio
from torch import Tensor

GATE_SECONDS = 0.4
"""The standard measures blocks of 0.4 s; a shorter clip's loudness is its plain RMS in dB instead."""
STEP_SECONDS = 0.1
LEAD_SECONDS = 1.0  # what the filters hear before a piece, so that they have settled
PIECE_SECONDS = 30.0
BIAS, ABSOLUTE_GATE, RELATIVE_GATE = -0.691, -70.0, -10.0
LOUDEST = 0.25  # torchaudio's filters clip at full scale, so a loud wave is measured 12 dB or more below it


class Loudness:
    """Loudness of one channel that arrives in blocks; the memory is that of half a minute."""

    def __init__(self, rate: int) -> None:
        self.rate, self.gate = rate, round(GATE_SECONDS * rate)
        self.step = max(1, round(STEP_SECONDS * rate))
        self.waiting, self.begin, self.next = list[Tensor](), 0, 0
        self.powers = list[float]()
        self.energy, self.samples = 0.0, 0

    def add(self, block: Tensor) -> None:
        """Go on by a block (n,)."""
        self.energy += float(torch.linalg.vector_norm(block, dtype=torch.float64).square())
        self.samples += len(block)
        self.waiting.append(block)
        if sum(map(len, self.waiting)) > PIECE_SECONDS * self.rate:
            self.measure()

    def measure(self) -> None:
        """The powers of the gate's blocks that lie in what waits; what later blocks need stays."""
        wave = torch.cat(self.waiting) if self.waiting else torch.zeros(0)
        first = self.next - self.begin
        if len(wave) - first >= self.gate:
            blocks = weighted(wave, self.rate)[first:].unfold(0, self.gate, self.step)
            # numbers, not a tensor: small ones among large ones keep the heap from shrinking
            self.powers += blocks.square().mean(1).tolist()
            self.next += len(blocks) * self.step
        drop = max(0, self.next - self.begin - round(LEAD_SECONDS * self.rate))
        self.waiting, self.begin = [wave[drop:]], self.begin + drop

    def value(self) -> float:
        """LUFS of all that was added; RMS in dB of full scale if the gate leaves nothing; silence is -inf."""
        self.measure()
        if self.powers and isfinite(level := gated(torch.tensor(self.powers))):
            return level
        return decibels(self.energy / self.samples) if self.samples else -float("inf")


def weighted(wave: Tensor, rate: int) -> Tensor:
    """The K-weighted wave (N,): a shelf of 4 dB above 1.5 kHz, and nothing below 38 Hz."""
    scale = min(1.0, LOUDEST / max(float(wave.abs().max()), 1e-12))
    shelf = audio.treble_biquad(wave * scale, rate, 4.0, 1500.0, 1 / sqrt(2))
    high: Tensor = audio.highpass_biquad(shelf, rate, 38.0, 0.5)
    return high / scale


def gated(powers: Tensor) -> float:
    """The loudness of the blocks above both gates, in LUFS."""
    levels = BIAS + 10 * powers.log10()
    loud = levels > ABSOLUTE_GATE
    threshold = BIAS + decibels(float(powers[loud].mean())) + RELATIVE_GATE if loud.any() else 0.0
    loud = loud & (levels > threshold)
    return BIAS + decibels(float(powers[loud].mean())) if loud.any() else -float("inf")


def decibels(power: float) -> float:
    return 10 * log10(power) if power > 0 else -float("inf")


def loudness(wave: Tensor, rate: int) -> float:
    """Loudness of (N,) in LUFS; of clips below 0.4 s, and those that the gate empties, the RMS in dB of full scale."""
    meter = Loudness(rate)
    meter.add(wave)
    return meter.value()
