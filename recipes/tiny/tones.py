"""Whether the tiny model's high tones are higher than its low ones.

python recipes/tiny/tones.py out/tiny     # after make tiny, or after generating "a low tone" and "a high tone" there
"""

import sys
from pathlib import Path

import numpy as np
import soundfile as sf


def pitch(path: Path) -> float:
    """Hz below and above which half of a sound's energy lies; NaN for silence."""
    wave, rate = sf.read(path)
    power = np.abs(np.fft.rfft((wave - wave.mean()) * np.hanning(len(wave)))) ** 2
    if not power.sum() > 0:
        return float("nan")
    return float(np.searchsorted(np.cumsum(power), power.sum() / 2) * rate / len(wave))


def main(folder: Path) -> int:
    """Print the pitches; 1 where the middle high tone is not an octave above the middle low one."""
    tones = {}
    for kind in ("low", "high"):
        tones[kind] = [pitch(path) for path in sorted(folder.glob(f"a_{kind}_tone_seed*.wav"))]
        if not tones[kind]:
            print(f'{folder} has no "a {kind} tone"; run make tiny.', file=sys.stderr)
            return 2
        print(f"a {kind} tone: {', '.join(f'{value:.0f}' for value in tones[kind])} Hz")
    low, high = (float(np.median(tones[kind])) for kind in ("low", "high"))
    if not high >= 2 * low:  # true of NaN, too
        print(
            f"The high tones ({high:.0f} Hz) are not above the low ones ({low:.0f} Hz): the model has not learned them."
            " Look at runs/tiny/*/previews.",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else "out/tiny")))
