"""Does "low" sound lower than "high"?   Pitch by torchcrepe, whose weights come inside its package."""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from importlib.util import find_spec

import torch
from torch import Tensor

from audioldm.datasets.decode import resample
from audioldm.datasets.manifest import Row
from audioldm.errors import AudioLDMError
from audioldm.evaluation.clips import shuffled
from audioldm.evaluation.generation import GeneratedClips

from .check import Check
from .sounds import Framing

Pitches = tuple[float | None, float | None]
"""Hz of a low and a high note"""
LOW = ("cello", "tuba", "bassoon", "trombone", "double bass")
HIGH = ("violin", "flute", "piccolo", "oboe", "glockenspiel")
PAIRS = 50
FMIN, FMAX = 32.7, 1975.5
"""Hz, the range of CREPE's 360 bins"""
VOICED = 0.5
"""periodicity above which a frame has a pitch"""
LEAST = 5
"""frames that must have one (0.25 s): fewer are chance, as in the attack of a plucked string"""
LOUD = 30.0
"""dB below the loudest frame where a note has ended"""
HOP = 800
"""samples (50 ms): a median needs no more"""
MODEL = "tiny"
"""CREPE's size: the full one needs 17 s a clip on a CPU core, and both are within a few cents on a clear note"""
SLOWER = (1, 2)
"""A glockenspiel's notes go up to 3136 Hz, beyond CREPE's range: so what has no pitch is taken at half speed, too."""


def pairs(count: int = PAIRS) -> list[tuple[str, str, int]]:
    """(low prompt, high prompt, seed): every low instrument with every high one, over and over; each its own seed.

    >>> pairs(2)
    [('a low cello note', 'a high violin note', 0), ('a low cello note', 'a high flute note', 1)]
    """
    crossed = [(f"a low {low} note", f"a high {high} note") for low in LOW for high in HIGH]
    return [(*crossed[i % len(crossed)], i) for i in range(count)]


def note_pitch(wave: Tensor, *, device: str = "cpu", model: str = MODEL) -> float | None:
    """Median pitch in Hz of the loud, periodic frames of a 16 kHz wave (N,); None where too few are periodic.

    The first speed of ``SLOWER`` counts at which enough are.
    """
    if find_spec("torchcrepe") is None:
        raise AudioLDMError(
            "Pitch needs the package torchcrepe, which is not installed.", 'Run: pip install "audioldm[eval]"'
        )
    for times in SLOWER:
        frames = voiced(resample(wave, 16000, 16000 * times), device=device, model=model)
        if len(frames) >= LEAST * times:
            return times * float(frames.median())
    return None


def voiced(wave: Tensor, *, device: str, model: str) -> Tensor:
    """Pitches (n,) of the loud, periodic frames of a wave (N,), taken for one of 16 kHz."""
    import torchcrepe

    frames = torch.nn.functional.pad(wave, (0, HOP)).unfold(0, 2 * HOP, HOP).square().mean(dim=1)
    loud = 10 * torch.log10(frames.clamp_min(1e-12))
    keep = loud > loud.max() - LOUD
    if not bool(loud.max() > -60):
        return torch.empty(0)
    last = int(keep.nonzero()[-1]) + 1
    pitch, periodicity = torchcrepe.predict(
        wave[None, : last * HOP].to(device), 16000, HOP, FMIN, FMAX, model, batch_size=512, device=device,
        return_periodicity=True, decoder=torchcrepe.decode.weighted_argmax,
    )  # fmt: skip
    size = min(len(keep), pitch.shape[1])
    periodic = keep[:size] & (periodicity[0, :size].cpu() > VOICED)
    return pitch[0, :size].cpu()[periodic]


def follows_words(
    clips: GeneratedClips,
    framing: Framing,
    rows: Sequence[Row],
    trip: Callable[[Tensor], Tensor],
    *,
    count: int = PAIRS,
) -> Check:
    """Share of pairs whose low clip is lower than its high one; a clip without pitch loses its pair.

    Beside it the same pairs of rendered notes, and those after the codec (``trip``, 16 kHz waves (N,)), which show what
    the measure and the codec lose.
    """
    device = str(clips.pipe.device)
    asked = pairs(count)
    lows = clips.waves([low for low, _, _ in asked], [seed for *_, seed in asked])
    highs = clips.waves([high for _, high, _ in asked], [seed for *_, seed in asked])
    rate = clips.pipe.spec.rate
    pitches = [
        (note_pitch(framing(low, rate), device=device), note_pitch(framing(high, rate), device=device))
        for low, high in zip(lows, highs, strict=True)
    ]
    real = real_pairs(rows, framing.of_row, asked, device=device)
    back = real_pairs(rows, lambda row: trip(framing.of_row(row)), asked, device=device)
    return Check(
        "pitch follows low and high",
        value=in_order(pitches),
        limit=0.9,
        n=count,
        rows={
            "rendered notes, the same pairs": in_order(real) if real else None,
            "codec on them": in_order(back) if back else None,
            "chance": 0.5,
        },
        detail=f"{sum(None in pair for pair in pitches)} pairs with a clip without pitch; {len(real)} rendered pairs",
        more={"hertz": pitches, "pairs": asked, "rendered": real},
    )


def in_order(pitches: Sequence[Pitches]) -> float:
    """Share of pairs whose first pitch is the lower one; a pair without a pitch is not in order.

    >>> in_order([(100.0, 200.0), (100.0, None)])
    0.5
    """
    return sum(low is not None and high is not None and low < high for low, high in pitches) / len(pitches)


def real_pairs(
    rows: Sequence[Row],
    wave_of: Callable[[Row], Tensor],
    asked: Sequence[tuple[str, str, int]],
    *,
    device: str,
) -> list[Pitches]:
    """Pitches of rendered notes for the pairs that are asked for, of any split: what is tested is the measure.

    Rows whose first caption is the prompt take turns; a pair of which a prompt has no row is left out.
    """
    named = defaultdict(list)
    for row in shuffled(rows):
        named[row.captions[0]].append(row)
    turns = Counter[str]()
    known: dict[str, float | None] = {}

    def pitch_of(prompt: str) -> float | None:
        row = named[prompt][turns[prompt] % len(named[prompt])]
        turns[prompt] += 1
        if row.path not in known:
            known[row.path] = note_pitch(wave_of(row), device=device)
        return known[row.path]

    return [(pitch_of(low), pitch_of(high)) for low, high, _ in asked if named[low] and named[high]]
