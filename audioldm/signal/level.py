"""How loud a waveform is."""

from torch import Tensor


def normalise_peak(wave: Tensor, *, peak: float = 0.5, max_gain: float = 20.0) -> Tensor:
    """Each row without its mean and scaled to ``peak``, as in AudioLDM's training; a gain is at most ``max_gain``."""
    centred = wave - wave.mean(-1, keepdim=True)
    return centred * (peak / centred.abs().amax(-1, keepdim=True).clamp(min=peak / max_gain))
