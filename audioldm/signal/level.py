"""How loud a waveform is."""

from torch import Tensor


def normalise_peak(wave: Tensor, *, peak: float = 0.5, max_gain: float = 20.0) -> Tensor:
    """Remove the mean and scale the last axis to ``peak``, as AudioLDM's training does; each row by itself.

    A gain is at most ``max_gain`` (20 = 26 dB), so that a nearly silent crop is not blown up to noise.
    """
    centred = wave - wave.mean(-1, keepdim=True)
    top = centred.abs().amax(-1, keepdim=True).clamp(min=peak / max_gain)
    return centred * (peak / top)


def peak_of(wave: Tensor) -> float:
    return float(wave.abs().max()) if wave.numel() else 0.0
