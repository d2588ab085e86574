"""Notes, phrases and drums played by General-MIDI instruments; every caption follows from what is played."""

import random
from collections.abc import Callable
from functools import partial
from pathlib import Path

from .general_midi import (
    DRUMS,
    INSTRUMENTS,
    PERCUSSION,
    Instrument,
    Note,
    midi,
    play,
    soundfont,
)
from .rendering import Clip, chooser, length

REGISTERS = {"low": (0, 59), "high": (71, 127), "middle": (60, 70)}
"""A note is called low below middle C (262 Hz) and high from B4 (494 Hz) on, if it lies in the instrument's own lower
or upper half as well: so the word holds whether a listener thinks of all sounds or of this instrument."""
MAJOR: tuple[int, ...] = (0, 2, 4, 5, 7, 9, 11, 12)
MINOR: tuple[int, ...] = (0, 2, 3, 5, 7, 8, 10, 12)
SLOW, FAST = (0.45, 0.6), (0.12, 0.18)
"""seconds from one note to the next"""
NUMBERS = {1: "a", 2: "two", 3: "three", 4: "four"}

Phrase = tuple[list[Note], tuple[str, ...]]


def article(noun: str) -> str:
    """The noun with a or an.

    >>> article("oboe"), article("piano")
    ('an oboe', 'a piano')
    """
    return f"{'an' if noun[0] in 'aeio' else 'a'} {noun}"


def registers(instrument: Instrument) -> dict[str, range]:
    """The keys of an instrument that are low, high and middle; a register that it has not is left out.

    >>> cello = next(i for i in INSTRUMENTS if i.name == "cello")
    >>> {word: (keys[0], keys[-1]) for word, keys in registers(cello).items()}
    {'low': (36, 54), 'high': (71, 74), 'middle': (60, 70)}
    """
    half = (instrument.low + instrument.high) // 2
    halves = {"low": (instrument.low, half - 1), "high": (half + 1, instrument.high), "middle": (0, 127)}
    out = {}
    for word, (low, high) in REGISTERS.items():
        keys = range(
            max(low, halves[word][0], instrument.low), min(high, halves[word][1], instrument.high) + 1
        )
        if len(keys) >= 3:
            out[word] = keys
    return out


PAIRS = tuple((instrument, word) for instrument in INSTRUMENTS for word in registers(instrument))
"""Every instrument with each register that it has."""


def single(rng: random.Random, instrument: Instrument, word: str, seconds: float) -> Phrase:
    """One note held through most of the clip."""
    key = rng.choice(registers(instrument)[word])
    name = instrument.name
    return [Note(0.05, seconds * 0.85, key)], (
        f"a {word} {name} note",
        f"{article(name)} playing a {word} note",
        f"a single {word} note on {article(name)}",
    )


def repeated(rng: random.Random, instrument: Instrument, seconds: float) -> Phrase:
    """One note again and again."""
    word, keys = rng.choice(list(registers(instrument).items()))
    key, step = rng.choice(keys), rng.uniform(0.25, 0.6)
    notes = [Note(0.05 + i * step, step * 0.7, key) for i in range(int(seconds / step))]
    name = instrument.name
    return notes, (f"a repeated {word} {name} note", f"{article(name)} repeating a {word} note")


def _pace(rng: random.Random) -> tuple[str, float]:
    """A word for the tempo, and seconds a note."""
    word = rng.choice(("slow", "fast"))
    return word, rng.uniform(*(SLOW if word == "slow" else FAST))


def scale(rng: random.Random, instrument: Instrument, seconds: float) -> Phrase:
    """Up or down the major or minor scale, over and over if there is time, never turning."""
    pace, step = _pace(rng)
    mode, steps = rng.choice((("major", MAJOR), ("minor", MINOR)))
    way = rng.choice(("ascending", "descending"))
    root = rng.randint(instrument.low, max(instrument.low, instrument.high - 12))
    order = steps if way == "ascending" else steps[::-1]
    order = tuple(offset for offset in order if root + offset <= instrument.high)
    count = min(len(order), int(seconds / step))
    notes = [Note(0.05 + i * step, step * 0.95, root + order[i]) for i in range(count)]
    name, gliding = instrument.name, "rising" if way == "ascending" else "falling"
    captions = [
        f"{article(name)} playing a {pace} {way} scale",
        f"a {pace} {gliding} scale on {article(name)}",
    ]
    if count == len(steps):
        captions.append(f"{article(name)} playing {article(way)} {mode} scale")
    return notes, tuple(captions)


def arpeggio(rng: random.Random, instrument: Instrument, seconds: float) -> Phrase:
    """The notes of a chord one after the other, up and down."""
    pace, step = _pace(rng)
    mode, chord = rng.choice((("major", (0, 4, 7, 12, 7, 4)), ("minor", (0, 3, 7, 12, 7, 3))))
    root = rng.randint(instrument.low, max(instrument.low, instrument.high - 12))
    notes = [Note(0.05 + i * step, step * 0.95, root + chord[i % 6]) for i in range(int(seconds / step))]
    name = instrument.name
    captions = (f"{article(name)} playing a {pace} {mode} arpeggio", f"a {pace} arpeggio on {article(name)}")
    return notes, captions


def chord(rng: random.Random, instrument: Instrument, seconds: float) -> Phrase:
    """Three notes at once, held."""
    mode, steps = rng.choice((("major", (0, 4, 7)), ("minor", (0, 3, 7))))
    root = rng.randint(max(instrument.low, 40), max(40, min(instrument.high, 79) - 12))
    name = instrument.name
    captions = (f"a {mode} {name} chord", f"{article(name)} playing a {mode} chord")
    return [Note(0.05, seconds * 0.85, root + offset) for offset in steps], captions


def melody(rng: random.Random, instrument: Instrument, seconds: float) -> Phrase:
    """A walk along a scale in small steps; no note is struck twice in a row."""
    pace, step = _pace(rng)
    steps = rng.choice((MAJOR, MINOR))
    root = rng.randint(instrument.low, max(instrument.low, instrument.high - 12))
    place, notes, time = rng.randrange(8), [], 0.05
    while time + step <= seconds:
        long = step * rng.choice((1, 1, 2))
        notes.append(Note(time, long * 0.95, min(root + steps[place], instrument.high)))
        time += long
        place = max(
            0, min(7, place + rng.choice([move for move in (-2, -1, 1, 2) if 0 <= place + move <= 7]))
        )
    name = instrument.name
    return notes, (f"{article(name)} playing a {pace} melody", f"a {pace} melody on {article(name)}")


PHRASES: tuple[Callable[[random.Random, Instrument, float], Phrase], ...] = (
    scale, arpeggio, repeated, melody,
)  # fmt: skip


def drums(rng: random.Random, seconds: float) -> Phrase:
    """Counted hits, a roll, or a beat."""
    kind = rng.choice(("hits", "hits", "roll", "beat"))
    if kind == "hits":
        key, name = rng.choice(list(PERCUSSION.items()))
        count, step = rng.randint(1, 4), rng.uniform(0.35, 0.5)
        notes = [Note(0.05 + i * step, 0.3, key) for i in range(count)]
        if count == 1:
            return notes, (f"a single {name} hit", f"one hit of {article(name)}")
        return notes, (f"{NUMBERS[count]} {name} hits", f"{article(name)} hit {NUMBERS[count]} times")
    if kind == "roll":
        key = rng.choice((38, 45, 50, 60, 76))
        step = rng.uniform(0.045, 0.06)
        notes = [
            Note(0.05 + i * step, 0.04, key, rng.randint(70, 100)) for i in range(int((seconds - 0.2) / step))
        ]
        return notes, (f"a {PERCUSSION[key]} roll", f"a fast roll on {article(PERCUSSION[key])}")
    pace, step = rng.choice((("slow", 0.4), ("fast", 0.16)))
    notes = []
    for i in range(int(seconds / step)):
        notes.append(Note(0.05 + i * step, 0.1, rng.choice((42, 42, 42, 46))))
        if i % 4 in (0, 2):
            notes.append(Note(0.05 + i * step, 0.1, 36 if i % 4 == 0 else 38, 110))
    return notes, (f"a {pace} drum beat", f"drums playing a {pace} beat")


def plan(index: int, seed: int) -> tuple[str, int, int, float, list[Note], tuple[str, ...]]:
    """(label, program, channel, seconds, notes, captions) of sound ``index``.

    Of ten, five are notes, four are phrases and one is drums.
    """
    rng = chooser(seed, "notes", index)
    seconds = length(rng)
    turn, kind = divmod(index, 10)
    if kind < 5:
        order = list(PAIRS)
        place = turn * 5 + kind
        chooser(seed, "pairs", place // len(PAIRS)).shuffle(order)  # every pair once before any comes twice
        instrument, word = order[place % len(PAIRS)]
        notes, captions = single(rng, instrument, word, seconds)
        return f"{instrument.name} note", instrument.program, 0, seconds, notes, captions
    if kind < 9:
        instrument = rng.choice(INSTRUMENTS)
        phrases = (*PHRASES, chord) if instrument.chords else PHRASES
        notes, captions = rng.choice(phrases)(rng, instrument, seconds)
        return f"{instrument.name} phrase", instrument.program, 0, seconds, notes, captions
    notes, captions = drums(rng, seconds)
    return "drums", 0, DRUMS, seconds, notes, captions


def sounds(count: int, seed: int, font: str | Path | None = None) -> list[Clip]:
    """``count`` notes, phrases and drums; sound ``i`` depends on (seed, i) and the sound font only."""
    font_path = soundfont(font)
    licence, author = (
        ("MIT", "Frank Wen (FluidR3)") if font_path.name == "FluidR3_GM.sf2" else ("unknown", font_path.name)
    )
    if font_path.name == "MuseScore_General_Lite.sf3":
        licence, author = "MIT", "S. Christian Collins and others (MuseScore General)"
    out = []
    for index in range(count):
        label, instrument, channel, seconds, notes, captions = plan(index, seed)
        song = midi(notes, instrument, channel=channel, seconds=seconds)
        key = f"midi/{font_path.name}/{song.hex()}/{seconds}"
        out.append(
            Clip(
                key, captions, (label,), f"rendered/{label}/{captions[0]}", licence, author, "rendered/notes",
                partial(play, song, font_path, seconds),
            )
        )  # fmt: skip
    return out
