"""Does "low" sound lower than "high"?   Pitch by torchcrepe, whose weights come inside its package."""

from collections.abc import Sequence
from importlib.util import find_spec

import torch
from torch import Tensor

from audioldm.datasets.manifest import Row
from audioldm.errors import AudioLDMError
from audioldm.evaluation.bars.bar import Bar
from audioldm.evaluation.bars.sounds import Framing, shuffled
from audioldm.evaluation.clips import Clips

LOW = ("cello", "tuba", "bassoon", "trombone", "contrabass")
HIGH = ("violin", "flute", "piccolo", "oboe", "glockenspiel")
PAIRS = 50
FMIN, FMAX = 32.7, 1975.5
"""Hz, the range of CREPE's 360 bins"""
VOICED = 0.5
"""periodicity above which a frame has a pitch"""
LOUD = 30.0
"""dB below the loudest frame where a note has ended"""
HOP = 800
"""samples (50 ms): a median needs no more"""
MODEL = "tiny"
"""CREPE's size: the full one needs 17 s a clip on a CPU core, and both are within a few cents on a clear note"""


def pairs(count: int = PAIRS) -> list[tuple[str, str, int]]:
    """(low prompt, high prompt, seed): every low instrument with every high one, then again with the next seed.

    >>> pairs(2)
    [('a low cello note', 'a high violin note', 0), ('a low cello note', 'a high flute note', 0)]
    """
    crossed = [(f"a low {low} note", f"a high {high} note") for low in LOW for high in HIGH]
    return [(*crossed[i % len(crossed)], i // len(crossed)) for i in range(count)]


def note_pitch(wave: Tensor, *, device: str = "cpu", model: str = MODEL) -> float | None:
    """Median pitch in Hz of the loud, periodic frames of a 16 kHz wave (N,); None where none is periodic."""
    if find_spec("torchcrepe") is None:
        raise AudioLDMError(
            "Pitch needs the package torchcrepe, which is not installed.", 'Run: pip install "audioldm[eval]"'
        )
    import torchcrepe

    frames = torch.nn.functional.pad(wave, (0, HOP)).unfold(0, 2 * HOP, HOP).square().mean(dim=1)
    loud = 10 * torch.log10(frames.clamp_min(1e-12))
    keep = loud > loud.max() - LOUD
    last = int(keep.nonzero()[-1]) + 1 if bool((loud.max() > -60) & keep.any()) else 0
    if not last:
        return None
    pitch, periodicity = torchcrepe.predict(
        wave[None, : last * HOP].to(device), 16000, HOP, FMIN, FMAX, model, batch_size=512, device=device,
        return_periodicity=True, decoder=torchcrepe.decode.weighted_argmax,
    )  # fmt: skip
    size = min(len(keep), pitch.shape[1])
    heard = keep[:size] & (periodicity[0, :size].cpu() > VOICED)
    return float(pitch[0, :size].cpu()[heard].median()) if bool(heard.any()) else None


def follows_words(clips: Clips, framing: Framing, rows: Sequence[Row], *, count: int = PAIRS) -> Bar:
    """Share of pairs whose low clip is lower than its high one; a clip without pitch loses its pair."""
    device = str(clips.pipe.device)
    asked = pairs(count)
    lows = clips.ask([low for low, _, _ in asked], [seed for *_, seed in asked])
    highs = clips.ask([high for _, high, _ in asked], [seed for *_, seed in asked])
    rate = clips.pipe.spec.rate
    found = [
        tuple(note_pitch(framing(wave, rate), device=device) for wave in pair)
        for pair in zip(lows, highs, strict=True)
    ]
    right = sum(low is not None and high is not None and low < high for low, high in found)
    real = real_pairs(rows, framing, count=count, device=device)
    return Bar(
        "pitch follows low and high",
        value=right / count,
        limit=0.9,
        n=count,
        rows={"rendered notes": real, "chance": 0.5},
        detail=f"{sum(None in pair for pair in found)} pairs with a clip without pitch",
        more={"hertz": found, "pairs": asked},
    )


def real_pairs(rows: Sequence[Row], framing: Framing, *, count: int, device: str) -> float | None:
    """The same of held-out rows whose captions say "low" or "high" and "note"; None where there are none."""

    def named(word: str) -> list[Row]:
        return shuffled(
            [
                row
                for row in rows
                if row.split != "train" and {word, "note"} <= set(row.captions[0].lower().split())
            ]
        )

    both = list(zip(named("low"), named("high"), strict=False))[:count]
    if not both:
        return None
    found = [tuple(note_pitch(framing.of_row(row), device=device) for row in pair) for pair in both]
    return sum(low is not None and high is not None and low < high for low, high in found) / len(found)
