"""Sounds and containers that the data tests make for themselves."""

import io
import struct
import tarfile
import zlib
from pathlib import Path

import numpy as np
import soundfile

from audioldm.datasets.check import check

RATE = 16000


def sine(seconds=1.0, hertz=440.0, rate=RATE, gain=0.5):
    return (gain * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def save(path, samples=None, rate=RATE, **settings):
    """A wav of 32-bit floats, so that what is read is what was written; its bytes hold the time of writing."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, sine() if samples is None else samples, rate, **({"subtype": "FLOAT"} | settings))
    return Path(path)


def wav_bytes(seconds=0.2, hertz=440.0):
    file = io.BytesIO()
    soundfile.write(file, sine(seconds, hertz), RATE, format="WAV", subtype="PCM_16")
    return file.getvalue()


def bad_sounds(folder):
    """One sound file of every kind that must not be trained on, and a good one; kind -> path."""
    whole = save(folder / "whole.wav").read_bytes()
    broken = folder / "corrupt.wav"
    broken.write_bytes(b"RIFF of nothing")
    flac = save(folder / "cut.flac", sine(2.0), subtype="PCM_16")
    flac.write_bytes(flac.read_bytes()[: flac.stat().st_size // 2])
    copy = folder / "copy.wav"
    copy.write_bytes(whole)
    hole = sine()
    hole[100] = np.nan
    return {
        "good": folder / "whole.wav",
        "corrupt": broken,
        "cut": flac,
        "duplicate": copy,
        "nan": save(folder / "nan.wav", hole),
        "silent": save(folder / "silent.wav", np.zeros(RATE, np.float32)),
        "missing": folder / "nowhere.wav",
    }


def tar_bytes(files, compression):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=f"w:{compression}") as tar:
        for name, data in files.items():
            item = tarfile.TarInfo(name)
            if data is None:
                item.type, item.linkname = tarfile.SYMTYPE, "/etc/passwd"
            item.size = len(data or b"")
            tar.addfile(item, io.BytesIO(data or b""))
    return file.getvalue()


def deb_bytes(files, compression="xz"):
    """ar: 8 magic bytes, then 60-byte headers (name, time, user, group, mode, size, end) and bodies of even length."""
    out = b"!<arch>\n"
    members = {
        "debian-binary": b"2.0\n",
        "control.tar.gz": b"odd",
        f"data.tar.{compression}": tar_bytes(files, compression),
    }
    for name, body in members.items():
        out += (
            f"{name:16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(body):<10}`\n".encode()
            + body
            + b"\n" * (len(body) % 2)
        )
    return out


def cat_bytes(sounds):
    """OpenTTD: table of (offset, size), then name length, name, RIFF, trailer for each."""
    table, bodies = b"", b""
    for name, riff in sounds:
        body = bytes([len(name)]) + name + riff + b"\x01x"
        table += struct.pack("<II", 8 * len(sounds) + len(bodies), len(body))
        bodies += body
    return struct.pack("<I", len(table) | 0x80000000) + table[4:] + bodies


def group_bytes(tree):
    """Clonk: scrambled header, 316-byte entries, bodies; nested dictionaries are nested groups."""
    header = bytearray(204)
    header[:24] = b"RedWolf Design GrpFolder"
    header[36:40] = struct.pack("<i", len(tree))
    for index in range(0, 202, 3):
        header[index], header[index + 2] = header[index + 2], header[index]
    table, bodies = b"", b""
    for name, value in tree.items():
        body = group_bytes(value) if isinstance(value, dict) else value
        entry = name.encode().ljust(260, b"\0")
        entry += struct.pack("<5i", 0, int(isinstance(value, dict)), len(body), 0, len(bodies))
        table += entry.ljust(316, b"\0")
        bodies += body
    return bytes(byte ^ 237 for byte in header) + table + bodies


def packed_group(tree):
    """A group as it lies on disk: gzip whose magic is 1E 8C."""
    packer = zlib.compressobj(wbits=31)
    data = packer.compress(group_bytes(tree)) + packer.flush()
    return b"\x1e\x8c" + data[2:]


def sound(path, hertz=440.0, seconds=0.5, rate=16000, channels=1):
    path.parent.mkdir(parents=True, exist_ok=True)
    wave = sine(seconds, hertz, rate)
    soundfile.write(path, np.stack([wave] * channels, axis=1), rate)
    return path


def sound_rows(rows, count, findings=None):
    """The rows, after the check that every command makes, by file name."""
    report = check(rows)
    assert report.counts() == (findings or {})
    assert len(report.rows) == count
    return {row.path.rsplit("/", 1)[-1]: row for row in report.rows}
