"""One description of the sound that a model works on; every length in the project derives from it.

Units: samples (waveform), frames (mel, one per hop), latent frames (one per ``stride`` mel frames), seconds.
"""

from dataclasses import dataclass
from math import ceil

from audioldm.errors import AudioLDMError


@dataclass(frozen=True)
class AudioSpec:
    """The mel front end and the latent grid.   AudioLDM (arXiv:2301.12503) sec. 4; HiFi-GAN's training mel.

    >>> spec = SPECS["16k_64"]
    >>> spec.frames(10.24), spec.latent_shape(10.24), spec.samples(10.24)
    (1024, (8, 256, 16), 163840)
    """

    name: str = "16k_64"
    rate: int = 16000
    n_fft: int = 1024
    win: int = 1024
    hop: int = 160
    mels: int = 64
    fmin: float = 0.0
    fmax: float = 8000.0
    floor: float = 1e-5
    latent_channels: int = 8
    stride: int = 4  # mel frames (and mel bins) per latent cell

    @property
    def pad(self) -> int:
        """Samples reflected at each end, so that ``n`` hops of samples give exactly ``n`` frames."""
        return (self.n_fft - self.hop) // 2

    @property
    def seconds_per_latent(self) -> float:
        """Seconds covered by one latent frame."""
        return self.hop * self.stride / self.rate

    def samples(self, seconds: float) -> int:
        """Samples in ``seconds``, to the nearest one."""
        return round(seconds * self.rate)

    def frames(self, seconds: float) -> int:
        """Mel frames that cover ``seconds`` (rounded up)."""
        return ceil(self.samples(seconds) / self.hop)

    def latent_frames(self, seconds: float, multiple: int = 1) -> int:
        """Latent frames that cover ``seconds``, rounded up to ``multiple`` (what the U-Net's down-sampling needs)."""
        return ceil(ceil(self.frames(seconds) / self.stride) / multiple) * multiple

    def latent_shape(self, seconds: float, multiple: int = 1) -> tuple[int, int, int]:
        """(channels, latent frames, latent bins) of a clip of ``seconds``."""
        return self.latent_channels, self.latent_frames(seconds, multiple), self.mels // self.stride

    def __post_init__(self) -> None:
        if self.mels % self.stride:
            wrong = f"mels={self.mels} is not a multiple of stride={self.stride}."
            raise AudioLDMError(wrong, "Change one of them.")
        if (self.n_fft - self.hop) % 2:
            wrong = f"n_fft={self.n_fft} minus hop={self.hop} is odd."
            raise AudioLDMError(wrong, "Make the difference even.")
        if self.fmax > self.rate / 2:
            raise AudioLDMError(f"fmax={self.fmax} Hz is above half of rate={self.rate} Hz.", "Lower fmax.")


SPECS: dict[str, AudioSpec] = {
    "16k_64": AudioSpec(),
    "48k_256": AudioSpec("48k_256", 48000, 2048, 2048, 480, 256, 20.0, 24000.0, latent_channels=16, stride=8),
}
"""AudioLDM's front ends by name: 16 kHz, and the 48 kHz one of its successor."""
