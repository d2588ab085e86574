"""Tones and noises made by formula: what is said of them is what was computed."""

import random
from collections.abc import Callable
from functools import partial
from math import pi

import torch
from torch import Generator, Tensor

from audioldm.datasets.draws import generator
from audioldm.datasets.synthetic import HIGH, LOW, between, chirp, clicks, rumble, tone, white

from .rendering import RATE, Clip, chooser, fit, length

MIDDLE = (440.0, 1100.0)
"""Hz; apart from LOW and HIGH by more than a fifth."""
WORDS = {"low": LOW, "middle": MIDDLE, "high": HIGH}
NUMBERS = {1: "a single", 2: "two", 3: "three", 4: "four", 5: "five"}

Sound = tuple[Tensor, tuple[str, ...]]


def clock(seconds: float) -> Tensor:
    """Times (N,) in seconds at 16 kHz, float64."""
    return torch.arange(round(seconds * RATE), dtype=torch.float64) / RATE


def steady(rng: random.Random, draws: Generator, time: Tensor) -> Sound:
    """A sine that does not change."""
    word = rng.choice(list(WORDS))
    return tone(time, WORDS[word], draws), (f"a {word} tone", f"a steady {word} tone", f"a {word} sine tone")


def glide(rng: random.Random, draws: Generator, time: Tensor) -> Sound:
    """A sine that rises or falls through the whole clip."""
    low, high = between(*LOW, draws), between(*HIGH, draws)
    if rng.random() < 0.5:
        return chirp(time, low, high), (
            "a rising tone",
            "a tone gliding upwards",
            "a rising whistle-like chirp",
        )
    return chirp(time, high, low), (
        "a falling tone",
        "a tone gliding downwards",
        "a falling whistle-like chirp",
    )


def beeps(rng: random.Random, draws: Generator, time: Tensor) -> Sound:
    """A counted number of short tones."""
    word, count = rng.choice(("low", "high")), rng.randint(1, 5)
    step, beep = rng.uniform(0.3, 0.38), rng.uniform(0.1, 0.18)
    inside = (torch.remainder(time - 0.05, step) < beep) & (time >= 0.05) & (time < 0.05 + count * step)
    noun = "beep" if count == 1 else "beeps"
    captions = (f"{NUMBERS[count]} {word} {noun}", f"{NUMBERS[count]} short {word} electronic {noun}")
    return tone(time, WORDS[word], draws) * smooth(inside), captions


def siren(rng: random.Random, draws: Generator, time: Tensor) -> Sound:
    """A pitch that swings up and down."""
    pace, rate = rng.choice((("slow", rng.uniform(0.4, 0.7)), ("fast", rng.uniform(2.5, 5.0))))
    centre, swing = between(600.0, 1200.0, draws), rng.uniform(0.25, 0.45)
    phase = centre * time - centre * swing / (2 * pi * rate) * torch.cos(2 * pi * rate * time)
    return torch.sin(2 * pi * phase), (f"a {pace} electronic siren", f"a tone swinging {pace}ly up and down")


def alternating(rng: random.Random, draws: Generator, time: Tensor) -> Sound:
    """Two tones in turn."""
    step = rng.uniform(0.2, 0.5)
    first = between(400.0, 700.0, draws)
    second = first * rng.uniform(1.2, 1.5)
    hertz = torch.where(torch.remainder(time, 2 * step) < step, first, second)
    wave = torch.sin(2 * pi * (hertz / RATE).cumsum(0))
    return wave, (
        "two alternating tones",
        "a two-tone electronic alarm",
        "a tone switching between two pitches",
    )


def trembling(rng: random.Random, draws: Generator, time: Tensor) -> Sound:
    """A tone whose loudness swings."""
    word, rate = rng.choice(list(WORDS)), rng.uniform(4.0, 9.0)
    return tone(time, WORDS[word], draws) * (0.5 - 0.5 * torch.cos(2 * pi * rate * time)), (
        f"a pulsating {word} tone", f"a {word} tone with tremolo",
    )  # fmt: skip


def buzz(rng: random.Random, draws: Generator, time: Tensor) -> Sound:
    """A saw tooth without partials above 7 kHz."""
    word, (low, high) = rng.choice((("low", (50.0, 140.0)), ("high", (700.0, 1500.0))))
    hertz = between(low, high, draws)
    partials = range(1, int(7000 / hertz) + 1)
    wave = sum((torch.sin(2 * pi * hertz * k * time) / k for k in partials), torch.zeros_like(time))
    return wave, (f"a {word} buzzing tone", f"a {word} electronic buzz")


def hiss(rng: random.Random, draws: Generator, time: Tensor) -> Sound:
    """White noise."""
    return white(time, draws), ("white noise", "steady hissing noise", "a steady hiss")


def pink(rng: random.Random, draws: Generator, time: Tensor) -> Sound:
    """Noise whose power falls by 3 dB an octave."""
    spectrum = torch.fft.rfft(torch.randn(len(time), generator=draws, dtype=torch.float64))
    hertz = torch.fft.rfftfreq(len(time), 1 / RATE).clamp(min=20.0)
    return torch.fft.irfft(spectrum / hertz.sqrt(), n=len(time)), ("pink noise", "steady rushing noise")


def low_noise(rng: random.Random, draws: Generator, time: Tensor) -> Sound:
    """Noise below 200 Hz."""
    return rumble(time, draws), ("a low rumble", "low rumbling noise", "a deep steady rumble")


def gusts(rng: random.Random, draws: Generator, time: Tensor) -> Sound:
    """Noise that swells and fades."""
    rate = rng.uniform(0.4, 1.0)
    swell = (0.5 - 0.5 * torch.cos(2 * pi * rate * time)).square()
    return white(time, draws) * (0.03 + swell), ("noise swelling and fading", "hissing noise in waves")


def ticking(rng: random.Random, draws: Generator, time: Tensor) -> Sound:
    """Clicks at an even rate."""
    return clicks(time, draws), ("repeated clicks", "a series of short clicks", "steady ticking clicks")


KINDS: dict[str, Callable[[random.Random, Generator, Tensor], Sound]] = {
    "tone": steady, "glide": glide, "beeps": beeps, "siren": siren, "two tones": alternating, "tremolo": trembling,
    "buzz": buzz, "white noise": hiss, "pink noise": pink, "rumble": low_noise, "gusts": gusts, "clicks": ticking,
}  # fmt: skip


def smooth(inside: Tensor) -> Tensor:
    """A gate (N,) of 0 and 1 with edges of 5 ms, so that it does not click."""
    width = RATE // 200 + 1  # odd: it is centred
    kernel = torch.ones(1, 1, width, dtype=torch.float64) / width
    return torch.nn.functional.conv1d(inside.double()[None, None], kernel, padding="same")[0, 0]


def make(index: int, seed: int) -> tuple[str, float, Sound]:
    """(kind, seconds, (samples, captions)) of sound ``index``; kinds in turn."""
    rng = chooser(seed, "tones", index)
    kind = list(KINDS)[index % len(KINDS)]
    seconds = length(rng)
    wave, captions = KINDS[kind](rng, generator(seed, 2, index), clock(seconds))
    return kind, seconds, (fit(wave.float(), seconds), captions)


def sounds(count: int, seed: int) -> list[Clip]:
    """``count`` tones and noises; sound ``i`` depends on (seed, i) only."""
    out = []
    for index in range(count):
        kind, seconds, (_, captions) = make(index, seed)
        out.append(
            Clip(
                f"tones/1/{seed}/{index}/{kind}/{seconds}", captions, (kind,), f"rendered/tones/{seed}/{index}",
                "CC0-1.0", "audioldm", "rendered/tones", partial(samples, index, seed),
            )
        )  # fmt: skip
    return out


def samples(index: int, seed: int) -> Tensor:
    """The samples (N,) of sound ``index`` at 16 kHz."""
    return make(index, seed)[2][0]
