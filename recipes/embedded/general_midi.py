"""General MIDI instruments, Standard MIDI Files, and FluidSynth that plays them.   General MIDI 1 (MMA, 1991).

A key is a MIDI note number: 60 is middle C, 12 an octave.   Times are seconds.
"""

import struct
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from audioldm.datasets.decode import decode
from audioldm.errors import AudioLDMError

from .rendering import RATE, fit, program, run

TICKS = 960
"""ticks a second: 480 a quarter note at MIDI's default of 120 a minute"""
DRUMS = 9
"""the channel whose keys are drums"""
RENDER_RATE = 48000
"""Above the sound font's own 44.1 kHz, so that FluidSynth's interpolation folds nothing into what 16 kHz can hold."""
SOUNDFONTS = (
    "/usr/share/sounds/sf2/FluidR3_GM.sf2",
    "/usr/share/soundfonts/FluidR3_GM.sf2",
    "/usr/share/sounds/sf3/MuseScore_General_Lite.sf3",
)


@dataclass(frozen=True)
class Instrument:
    """A program (0 to 127), what a listener calls it, the keys that it really has, and whether it plays chords."""

    program: int
    name: str
    low: int
    high: int
    chords: bool = False


INSTRUMENTS = tuple(
    Instrument(*entry)
    for entry in (
        (0, "piano", 28, 100, True), (4, "electric piano", 28, 96, True), (6, "harpsichord", 36, 84, True),
        (8, "celesta", 60, 100, True), (9, "glockenspiel", 72, 103), (10, "music box", 60, 96, True),
        (11, "vibraphone", 53, 89, True), (12, "marimba", 45, 92), (13, "xylophone", 65, 103),
        (14, "tubular bell", 60, 77), (15, "dulcimer", 48, 84), (16, "organ", 36, 92, True),
        (19, "church organ", 28, 92, True), (21, "accordion", 53, 89, True), (22, "harmonica", 60, 92),
        (24, "nylon string guitar", 40, 79, True), (25, "steel string guitar", 40, 79, True),
        (26, "jazz guitar", 40, 79, True), (27, "electric guitar", 40, 83, True),
        (30, "distorted electric guitar", 40, 83), (32, "plucked double bass", 28, 57), (33, "electric bass", 28, 57),
        (36, "slap bass", 28, 57), (38, "synthesizer bass", 28, 57), (40, "violin", 55, 96), (41, "viola", 48, 84),
        (42, "cello", 36, 74), (43, "double bass", 28, 57), (45, "pizzicato string", 36, 88),
        (46, "harp", 28, 96, True), (47, "timpani", 40, 57), (48, "string orchestra", 36, 88, True),
        (52, "choir", 45, 81, True),
        (56, "trumpet", 54, 84), (57, "trombone", 40, 70), (58, "tuba", 28, 55), (59, "muted trumpet", 54, 84),
        (60, "french horn", 41, 74), (61, "brass section", 36, 79, True), (64, "soprano saxophone", 56, 86),
        (65, "alto saxophone", 49, 80), (66, "tenor saxophone", 44, 75), (67, "baritone saxophone", 36, 68),
        (68, "oboe", 58, 88), (69, "english horn", 52, 79), (70, "bassoon", 34, 70), (71, "clarinet", 50, 88),
        (72, "piccolo", 74, 101), (73, "flute", 60, 96), (74, "recorder", 60, 92), (75, "pan flute", 60, 92),
        (77, "shakuhachi", 55, 84), (79, "ocarina", 60, 88), (80, "square wave synthesizer", 36, 96),
        (81, "sawtooth synthesizer", 36, 96), (104, "sitar", 48, 76), (105, "banjo", 48, 84), (106, "shamisen", 48, 80),
        (107, "koto", 48, 84), (108, "kalimba", 48, 79), (110, "fiddle", 55, 93), (114, "steel drum", 52, 88),
    )
)  # fmt: skip
"""Programs whose name says what is heard, over the range of the real instrument."""

PERCUSSION = {
    36: "kick drum", 37: "rim click", 38: "snare drum", 39: "hand clap", 42: "closed hi-hat", 45: "low tom drum",
    46: "open hi-hat", 49: "crash cymbal", 50: "high tom drum", 51: "ride cymbal", 54: "tambourine", 56: "cowbell",
    60: "bongo", 63: "conga", 65: "timbale", 70: "maraca", 75: "wooden clave", 76: "wood block", 81: "triangle",
}  # fmt: skip
"""key on the drum channel -> what is struck"""


@dataclass(frozen=True)
class Note:
    """One key, pressed at ``start`` for ``seconds``."""

    start: float
    seconds: float
    key: int
    velocity: int = 96


def soundfont(path: str | Path | None = None) -> Path:
    """The sound font: the named one, else the first of SOUNDFONTS that is installed."""
    places = SOUNDFONTS if path is None else (path,)
    font = next((Path(place) for place in places if Path(place).is_file()), None)
    if font is None:
        raise AudioLDMError(
            f"There is no sound font at {', '.join(map(str, places))}.",
            "Run `apt-get install fluid-soundfont-gm`, or pass --soundfont.",
        )
    return font


def midi(notes: Sequence[Note], instrument: int, *, channel: int = 0, seconds: float) -> bytes:
    """A Standard MIDI File of one track (format 0) that ends after ``seconds``.

    >>> midi([Note(0.0, 0.5, 60)], 40, seconds=1.0)[:4]
    b'MThd'
    """
    last = round(seconds * TICKS)
    events = [(0, 0, bytes([0xC0 | channel, instrument]))]
    for note in notes:
        begin, end = round(note.start * TICKS), min(last, round((note.start + note.seconds) * TICKS))
        if begin < end:
            events.append((begin, 2, bytes([0x90 | channel, note.key, note.velocity])))
            events.append((end, 1, bytes([0x80 | channel, note.key, 0])))  # let go before it is struck again
    events.append(
        (last, 3, b"\xff\x2f\x00")
    )  # after every release: a key that is never let go sounds for ever
    track, now = b"", 0
    for tick, _, message in sorted(events):
        track += _variable(tick - now) + message
        now = tick
    return (
        struct.pack(">4sIHHH", b"MThd", 6, 0, 1, TICKS // 2)
        + struct.pack(">4sI", b"MTrk", len(track))
        + track
    )


def _variable(number: int) -> bytes:
    """A variable-length quantity: seven bits a byte, the first ones marked."""
    out = [number & 0x7F]
    while number := number >> 7:
        out.append(0x80 | (number & 0x7F))
    return bytes(reversed(out))


def play(song: bytes, font: Path, seconds: float) -> Tensor:
    """A MIDI file as samples (N,) at 16 kHz; dry, since reverberation would outlast the clip."""
    with tempfile.TemporaryDirectory() as folder:
        score, sound = Path(folder) / "a.mid", Path(folder) / "a.wav"
        score.write_bytes(song)
        run([
            program("fluidsynth"), "-n", "-i", "-q", "-R", "0", "-C", "0", "-g", "0.5", "-r", str(RENDER_RATE),
            "-o", "synth.dynamic-sample-loading=1", "-T", "wav", "-O", "float", "-F", str(sound), str(font), str(score),
        ])  # fmt: skip
        if not sound.is_file():
            raise AudioLDMError(f"fluidsynth made no sound with {font}.", "Is it a sound font?", code=1)
        return fit(decode(sound, RATE), seconds)
