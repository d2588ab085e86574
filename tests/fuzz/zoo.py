"""Sounds that a script makes: whole ones of every kind, headers that lie, files cut short, flipped bytes, no sounds."""

import io
import os
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import soundfile

from audioldm.datasets.containers import checksum

RATE = 16000
Fit = Literal["whole", "broken", "odd"]
"""every door must take it; none may; either, in order"""


@dataclass(frozen=True)
class Sound:
    """``write`` puts it at a path; ``rate`` is what its header states, where it is one that a sound can have."""

    name: str
    fit: Fit
    write: Callable[[Path], object]
    rate: int = RATE


def noise(rng: np.random.Generator, samples: int = 12000, channels: int = 1) -> np.ndarray:
    """Noise with a slow swell: no block is like another, and no channel cancels another."""
    swell = 0.6 + 0.4 * np.sin(np.arange(samples) / 900)
    return (0.1 * swell[:, None] * rng.standard_normal((samples, channels))).astype(np.float32)


def packed(wave: np.ndarray, rate: int = RATE, **settings: str) -> bytes:
    """The bytes of a file that libsndfile writes."""
    file = io.BytesIO()
    soundfile.write(file, wave, rate, **settings)
    content = bytearray(file.getvalue())
    if (peak := content.find(b"PEAK", 0, 200)) > 0:  # holds the time of writing
        content[peak + 12 : peak + 16] = bytes(4)
    place = 0
    while content[place : place + 4] == b"OggS":  # each stream has a number drawn from the clock
        end = place + 27 + content[place + 26]
        end += sum(content[place + 27 : end])
        content[place + 14 : place + 18], content[place + 22 : place + 26] = b"fuzz", bytes(4)
        content[place + 22 : place + 26] = checksum(bytes(content[place:end])).to_bytes(4, "little")
        place = end
    return bytes(content)


def of_bytes(name: str, fit: Fit, content: bytes, rate: int = RATE) -> Sound:
    """A sound whose file is these bytes."""
    return Sound(name, fit, lambda path: path.write_bytes(content), rate)


def changed(content: bytes, at: int, new: bytes) -> bytes:
    """``content`` with other bytes at a place."""
    return content[:at] + new + content[at + len(new) :]


CONTAINERS = {
    "wav": ("WAV", "PCM_16"),
    "rf64": ("RF64", "PCM_16"),
    "w64": ("W64", "PCM_16"),
    "caf": ("CAF", "PCM_16"),
    "aiff": ("AIFF", "PCM_16"),
    "au": ("AU", "PCM_16"),
    "flac": ("FLAC", "PCM_16"),
    "ogg": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
}
WHOLE = [
    *(
        (f"{kind.lower()}.wav", "WAV", kind)
        for kind in (
            "PCM_U8",
            "PCM_16",
            "PCM_24",
            "PCM_32",
            "FLOAT",
            "DOUBLE",
            "ULAW",
            "ALAW",
            "GSM610",
            "MS_ADPCM",
            "IMA_ADPCM",
        )
    ),
    ("extensible.wav", "WAVEX", "PCM_24"),
    ("8.aiff", "AIFF", "PCM_S8"),
    ("24.aiff", "AIFF", "PCM_24"),
    ("float.aifc", "AIFF", "FLOAT"),
    ("float.au", "AU", "FLOAT"),
    ("ulaw.au", "AU", "ULAW"),
    ("24.caf", "CAF", "PCM_24"),
    ("alac.caf", "CAF", "ALAC_16"),
    ("double.w64", "W64", "DOUBLE"),
    ("24.flac", "FLAC", "PCM_24"),
    *((f"plain.{name}", *kind) for name, kind in CONTAINERS.items()),
]
RATES = (8000, 11025, 12345, 22050, 44100, 48000, 96000, 192000)
CHANNELS = (2, 3, 6, 8, 64)
CUTS = (0.02, 0.3, 0.9, 0.995)
NAMES = (
    "=cmd|' 'A0",
    "@sum",
    "-n",
    "--help",
    "\x1b[2Jsteer",
    "two\nlines",
    "a\u202evaw",
    "\udcff\udcfe",
    "雨 🌧",
    "x" * 200,
    "100%s{}",
    "a.wav",
    ".hidden",
)


def whole(rng: np.random.Generator) -> Iterator[Sound]:
    """Every width, container, rate and number of channels."""
    for name, format, subtype in WHOLE:
        yield of_bytes(f"whole {name}", "whole", packed(noise(rng), format=format, subtype=subtype))
    for rate in RATES:
        yield of_bytes(f"{rate} Hz.wav", "whole", packed(noise(rng, rate * 3 // 4), rate, format="WAV"), rate)
    for channels in CHANNELS:
        wave = noise(rng, 12000, channels)
        yield of_bytes(f"{channels} channels.wav", "whole", packed(wave, format="WAV", subtype="PCM_16"))
    if shutil.which("ffmpeg") is not None:
        for name, codec in (
            ("m4a", "aac"),
            ("webm", "libopus"),
            ("mka", "flac"),
            ("aac", "aac"),
            ("wav", "libmp3lame"),
        ):
            write = by_ffmpeg(packed(noise(rng), format="WAV"), codec)
            yield Sound(f"by ffmpeg {codec}.{name}", "whole", write, 48000 if codec == "libopus" else RATE)


def by_ffmpeg(content: bytes, codec: str) -> Callable[[Path], object]:
    """Write by the program ffmpeg."""

    def write(path: Path) -> None:
        words = [
            "ffmpeg",
            "-v",
            "error",
            "-y",
            "-i",
            "-",
            "-c:a",
            codec,
            "-ar",
            str(48000 if "opus" in codec else RATE),
        ]
        subprocess.run([*words, f"file:{path}"], input=content, check=True)

    return write


def lies(rng: np.random.Generator) -> Iterator[Sound]:
    """Headers that promise what is not there, or nothing at all."""
    flac = packed(noise(rng), format="FLAC", subtype="PCM_16")
    state = int.from_bytes(flac[18:26], "big") >> 36 << 36
    for total, fit in ((0, "whole"), (1, "odd"), (2**36 - 1, "broken"), (11999, "odd"), (12001, "broken")):
        yield of_bytes(f"length {total}.flac", fit, changed(flac, 18, (state | total).to_bytes(8, "big")))
    wav = packed(noise(rng), format="WAV", subtype="PCM_16")
    for name, at, value, size, fit in (
        ("rate 0", 24, 0, 4, "broken"),
        ("rate 1", 24, 1, 4, "broken"),
        ("rate 499", 24, 499, 4, "broken"),
        ("rate 2 GHz", 24, 2_000_000_000, 4, "broken"),
        ("rate negative", 24, 2**32 - 1, 4, "broken"),
        ("channels 0", 22, 0, 2, "broken"),
        ("channels 65", 22, 65, 2, "broken"),
        ("channels 65535", 22, 65535, 2, "broken"),
        ("bits 0", 34, 0, 2, "odd"),
        ("bits 7", 34, 7, 2, "odd"),
        ("bits 64", 34, 64, 2, "odd"),
        ("block 0", 32, 0, 2, "odd"),
        ("block 1", 32, 1, 2, "odd"),
        ("bytes a second 0", 28, 0, 4, "odd"),
        ("tag 0", 20, 0, 2, "odd"),
        ("tag 0x1234", 20, 0x1234, 2, "broken"),
        ("tag mp3", 20, 0x55, 2, "odd"),
        ("tag gsm", 20, 0x31, 2, "odd"),
        ("tag extensible", 20, 0xFFFE, 2, "odd"),
        ("tag float", 20, 3, 2, "odd"),
        ("data 0", 40, 0, 4, "odd"),
        ("data 1", 40, 1, 4, "odd"),
        ("data 4 GiB", 40, 2**32 - 1, 4, "odd"),
        ("data 2 GiB", 40, 2**31, 4, "odd"),
        ("riff 0", 4, 0, 4, "odd"),
        ("riff 4 GiB", 4, 2**32 - 1, 4, "odd"),
        ("format chunk 2 GiB", 16, 2**31, 4, "odd"),
        ("format chunk 0", 16, 0, 4, "odd"),
    ):
        yield of_bytes(f"{name}.wav", fit, changed(wav, at, value.to_bytes(size, "little")))
    w64 = packed(noise(rng), format="W64", subtype="PCM_16")
    place = w64.index(b"data\xf3\xac\xd3\x11") + 16
    for size, fit in ((0, "odd"), (2**40, "broken"), (2**63 - 1, "odd"), (2**64 - 1, "odd")):
        yield of_bytes(f"data {size}.w64", fit, changed(w64, place, size.to_bytes(8, "little")))
    rf64 = packed(noise(rng), format="RF64", subtype="PCM_16")
    for size in (0, 2**40, 2**62):
        yield of_bytes(
            f"data {size}.rf64", "odd", changed(rf64, rf64.index(b"ds64") + 16, struct.pack("<Q", size))
        )
    caf = packed(noise(rng), format="CAF", subtype="PCM_16")
    for size, fit in ((-1, "odd"), (2**62, "odd"), (0, "odd")):
        yield of_bytes(f"data {size}.caf", fit, changed(caf, caf.index(b"data") + 4, struct.pack(">q", size)))
    aiff = packed(noise(rng), format="AIFF", subtype="PCM_16")
    common = aiff.index(b"COMM") + 8
    yield of_bytes("frames 4 G.aiff", "odd", changed(aiff, common + 2, b"\xff" * 4))
    yield of_bytes("rate infinite.aiff", "broken", changed(aiff, common + 8, b"\x7f\xff" + b"\xff" * 8))
    yield of_bytes("rate 0.aiff", "broken", changed(aiff, common + 8, b"\0" * 10))
    au = packed(noise(rng), format="AU", subtype="PCM_16")
    for name, at, value in (
        ("offset 2 GiB", 4, 2**31),
        ("size unknown", 8, 2**32 - 1),
        ("channels 2 G", 20, 2**31),
    ):
        yield of_bytes(f"{name}.au", "odd", changed(au, at, value.to_bytes(4, "big")))
    ogg = packed(noise(rng), format="OGG", subtype="VORBIS")
    last = ogg.rindex(b"OggS") + 6
    for granule in (0, 2**40, 2**63 - 1):
        yield of_bytes(f"granule {granule}.ogg", "odd", changed(ogg, last, granule.to_bytes(8, "little")))


def damaged(rng: np.random.Generator) -> Iterator[Sound]:
    """Files that were cut short, and files with flipped bytes."""
    for name, (format, subtype) in CONTAINERS.items():
        content = packed(noise(rng, 16000), format=format, subtype=subtype)
        for share in CUTS:
            fit: Fit = "odd" if name == "mp3" or share < 0.1 else "broken"
            yield of_bytes(f"cut at {share:g}.{name}", fit, content[: int(share * len(content))])
        for number, count in enumerate((1, 40)):
            flipped = bytearray(content)
            for place in rng.integers(0 if number == 0 else 200, len(content), count):
                flipped[place] ^= 0xFF
            yield of_bytes(f"{count} bytes flipped.{name}", "odd", bytes(flipped))
        yield of_bytes(f"trailing bytes.{name}", "odd", content + rng.bytes(5000))


def contents(rng: np.random.Generator) -> Iterator[Sound]:
    """Samples that are no sound, or hardly one."""

    def float_wav(wave: np.ndarray) -> bytes:
        return packed(wave.astype(np.float32), format="WAV", subtype="FLOAT")

    wave = noise(rng)[:, 0]
    odd: dict[str, np.ndarray] = {
        "one sample": wave[:1],
        "three samples": wave[:3],
        "10 ms": wave[:160],
        "tiny": 1e-30 * wave,
        "denormal": np.full(12000, 1e-42),
        "silence": np.zeros(12000),
        "constant": np.full(12000, 0.3),
        "square": np.sign(wave),
        "an impulse": np.eye(1, 12000, 6000)[0],
        "loud": 1e4 * wave,
        "very loud": 1e30 * wave,
        "beyond": 3e38 * np.sign(wave),
        "antiphase": np.stack([wave, -0.9 * wave], 1),
        "nyquist": np.tile([0.5, -0.5], 6000),
        "silent channel": np.stack([wave, 0 * wave], 1),
        "hour of nothing": np.zeros(RATE * 40),
    }
    for name, samples in odd.items():
        yield of_bytes(f"{name}.wav", "odd", float_wav(samples))
    for name, value in (("nan", np.nan), ("infinity", np.inf), ("minus infinity", -np.inf)):
        hole, last = wave.copy(), wave.copy()
        hole[100], last[-1] = value, value
        yield of_bytes(f"{name}.wav", "broken", float_wav(hole))
        yield of_bytes(f"{name} at the end.wav", "broken", float_wav(last))
        yield of_bytes(f"{name} in one channel.wav", "broken", float_wav(np.stack([wave, hole], 1)))
    yield of_bytes("nan.aifc", "broken", packed(hole, format="AIFF", subtype="FLOAT"))
    yield of_bytes("all nan.wav", "broken", float_wav(np.full(12000, np.nan)))
    yield of_bytes("no samples.wav", "broken", float_wav(wave[:0]))
    yield of_bytes("no samples.flac", "broken", packed(wave[:0], format="FLAC", subtype="PCM_16"))


def strangers(rng: np.random.Generator) -> Iterator[Sound]:
    """What is no sound, and sounds of strange names."""
    for name, content in {
        "empty.wav": b"",
        "empty.mp3": b"",
        "empty.m4a": b"",
        "page.mp3": b"<!DOCTYPE html><html>404</html>",
        "riff.wav": b"RIFF",
        "zeros.wav": b"\0" * 5000,
        "zeros.mp3": b"\0" * 5000,
        "random.mp3": rng.bytes(5000),
        "random.ogg": rng.bytes(5000),
        "random.m4a": rng.bytes(5000),
        "text.wav": b"a text\n" * 100,
        "json.flac": b"{}",
        "magic.ogg": b"OggS",
        "magic.flac": b"fLaC",
        "magic.mp3": b"ID3\x04\0\0\x7f\x7f\x7f\x7f",
        "magic.m4a": b"\0\0\0\x20ftypM4A ",
        "form.aiff": b"FORM\0\0\0\x04AIFF",
        "id3 only.mp3": b"ID3\x03\0\0\0\0\0\x0a" + b"\0" * 10,
        "playlist.m4a": b"#EXTM3U\nfile:///etc/passwd\n",
        "concat.m4a": b"ffconcat version 1.0\nfile /etc/passwd\n",
        "elf.wav": b"\x7fELF" + rng.bytes(600),
        "zip.flac": b"PK\x03\x04" + rng.bytes(600),
    }.items():
        yield of_bytes(name, "broken", content)
    yield Sound("a folder.wav", "broken", lambda path: path.mkdir())
    yield Sound("a pipe.wav", "broken", os.mkfifo)
    yield Sound("dangling.wav", "broken", lambda path: path.symlink_to("nowhere"))
    yield Sound("endless.wav", "broken", lambda path: path.symlink_to("/dev/zero"))
    yield Sound("in a circle.wav", "broken", lambda path: path.symlink_to(path.name))
    sound = packed(noise(rng), format="WAV", subtype="PCM_16")
    for name in NAMES:
        yield of_bytes(f"{name}.wav", "odd", sound)


def zoo(seed: int) -> list[Sound]:
    """All of them; the same seed, the same bytes."""
    rng = np.random.default_rng(seed)
    return [sound for kind in (whole, lies, damaged, contents, strangers) for sound in kind(rng)]
