"""Work that can be stopped, requests within limits, results that nobody else's request touches."""

import json
import shutil
import subprocess
from dataclasses import replace
from math import ceil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from audioldm.app.page import finished
from audioldm.datasets import decode
from audioldm.errors import AudioLDMError
from audioldm.serve.service import EditRequest

ASK = {"seconds": 0.5, "takes": 1, "seed": 0, "steps": 2}
EDIT = {"begin": 0.1, "end": 0.3, "strength": 0.5, "seconds": 0.3, "splice": False, "takes": 1, "seed": 0}


def edited(studio, kind, path, prompt="rain", **changes):
    return studio.edit(EditRequest(kind, path, prompt, **{**EDIT, **changes}), steps=2)


def last(events):
    *_, takes = events
    return takes


def test_takes_have_their_own_seeds_files_and_sidecars(studio):
    takes = last(studio.generate("rain", **{**ASK, "takes": 3, "seed": 5}))
    assert [take["seed"] for take in takes] == [5, 6, 7]
    assert len({Path(take["audio"]).read_bytes() for take in takes}) == 3
    record = json.loads(Path(takes[1]["sidecar"]).read_text())
    assert (record["prompt"], record["seed"], record["settings"]["steps"]) == ("rain", 6, 2)
    again = last(studio.generate("rain", **{**ASK, "seed": 6}))
    assert Path(again[0]["audio"]).read_bytes() == Path(takes[1]["audio"]).read_bytes()
    assert Path(again[0]["audio"]).parent != Path(takes[1]["audio"]).parent


@pytest.fixture
def upload(tmp_path):
    path = tmp_path / "noise.dat"  # the name says nothing: the content counts
    soundfile.write(path, 0.1 * np.random.default_rng(0).normal(size=(20000, 2)), 22050, format="WAV")
    return str(path)


@pytest.mark.parametrize("kind", ["transfer", "inpaint", "continue", "vary", "denoise"])
def test_every_edit_of_the_page(studio, upload, kind):
    (take,) = last(edited(studio, kind, upload))
    seconds = 20000 / 22050 + (0.3 if kind == "continue" else 0)
    assert soundfile.info(take["audio"]).frames == ceil(seconds * 16000)


def test_upscale_and_splice(studio, tmp_path, upload):
    path = tmp_path / "narrow.wav"
    soundfile.write(path, 0.1 * np.random.default_rng(0).normal(size=8000), 8000)
    last(edited(studio, "upscale", str(path), ""))
    (take,) = last(edited(studio, "inpaint", upload, splice=True))
    output, rate = soundfile.read(Path(take["audio"]), dtype="int16")
    before, _ = soundfile.read(upload, dtype="int16")
    assert (rate, output.shape) == (22050, before.shape)
    assert np.array_equal(output[-8000:], before[-8000:])


def test_what_is_beyond_the_limits_is_a_sentence(studio):
    for changed, expected in (
        ({"seconds": 9.0}, "more than 5"),
        ({"seconds": -1}, "seconds=-1"),
        ({"takes": 40}, "takes=40"),
        ({"steps": 900}, "steps=900"),
        ({"seed": -1}, "seed"),
        ({"sampler": "best"}, "unknown"),
        ({"guidance": float("nan")}, "guidance"),
    ):
        with pytest.raises(AudioLDMError, match=expected):
            last(studio.generate("rain", **{**ASK, **changed}))


def test_uploads_are_judged_by_their_content(studio, tmp_path, upload):
    (tmp_path / "song.wav").write_text("<html>not a sound</html>")
    soundfile.write(tmp_path / "long.wav", np.zeros(6 * 8000), 8000)
    (tmp_path / "big.wav").write_bytes(b"\0" * 2**21)
    for path, expected in {
        str(tmp_path / "song.wav"): "^Cannot read audio from the file: it is a web page",
        str(tmp_path / "long.wav"): "6 s or more, more than 5",
        str(tmp_path / "big.wav"): "larger than 1 MB",
        None: "no sound to edit",
    }.items():
        with pytest.raises(AudioLDMError, match=expected):
            last(edited(studio, "vary", path))
    for splice in (False, True):
        with pytest.raises(AudioLDMError, match="no region"):
            last(edited(studio, "inpaint", upload, end=0.0, splice=splice))
    with pytest.raises(AudioLDMError, match="prompt is empty"):
        last(studio.generate("  ", **ASK))


def test_a_decompression_bomb_is_refused_before_it_fills_the_memory(studio, tmp_path):
    import resource

    silence = np.zeros((16000 * 4, 8), dtype=np.int16)
    soundfile.write(tmp_path / "bomb.flac", np.tile(silence, (60, 1)), 16000)
    soundfile.write(tmp_path / "wide.flac", np.tile(silence, (20, 1)), 655350)
    small = replace(studio, limits=replace(studio.limits, decoded_mb=16))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name in ("bomb", "wide"):
        assert (tmp_path / f"{name}.flac").stat().st_size < 2**20
        with pytest.raises(AudioLDMError, match="s or more, more than"):
            last(edited(small, "vary", str(tmp_path / f"{name}.flac")))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")
def test_what_ffmpeg_decodes_never_fills_the_disk(studio, tmp_path, monkeypatch):
    silence, sizes = ("-f", "lavfi", "-i", "anullsrc=r=48000:cl=stereo", "-t"), []
    for name, seconds in (("bomb", "300"), ("short", "1")):
        words = ["ffmpeg", "-v", "error", *silence, seconds, "-b:a", "8k", tmp_path / f"{name}.m4a"]
        subprocess.run(words, check=True)
    assert (tmp_path / "bomb.m4a").stat().st_size < 2**20
    plain = decode.by_ffmpeg

    def by_ffmpeg(*arguments):
        sizes.append(plain(*arguments).stat().st_size)
        return arguments[1]

    monkeypatch.setattr(decode, "by_ffmpeg", by_ffmpeg)
    small = replace(studio, limits=replace(studio.limits, decoded_mb=8))  # 1 M samples: 11 s of two channels
    with pytest.raises(AudioLDMError, match="s or more, more than"):
        small.opened(str(tmp_path / "bomb.m4a"))
    wide = replace(small, limits=replace(small.limits, seconds=1000.0))
    with pytest.raises(AudioLDMError, match="s or more, more than"):
        wide.opened(str(tmp_path / "bomb.m4a"))
    assert len(sizes) == 2 and max(sizes) < 5 * 2**20
    assert small.opened(str(tmp_path / "short.m4a")).seconds == pytest.approx(1.0, abs=0.1)


def test_a_length_that_the_header_does_not_state_is_counted(studio, tmp_path):
    path = tmp_path / "streamed.flac"
    soundfile.write(path, 0.1 * np.random.default_rng(0).normal(size=6 * 8000), 8000)
    data = bytearray(path.read_bytes())
    data[21] &= 0xF0  # STREAMINFO: 36 bits of total samples, 0 where an encoder wrote to a pipe
    data[22:26] = bytes(4)
    path.write_bytes(data)
    with pytest.raises(AudioLDMError, match="more than 5"):
        last(edited(studio, "vary", str(path)))


def test_antiphase_is_heard_and_told(studio, tmp_path):
    wave = 0.1 * np.random.default_rng(0).normal(size=16000)
    soundfile.write(tmp_path / "wide.wav", np.stack([wave, -wave], 1), 16000)
    assert studio.opened(str(tmp_path / "wide.wav")).mono(16000).abs().max() > 0.05
    (take,) = last(edited(studio, "vary", str(tmp_path / "wide.wav")))
    notes = json.loads(Path(take["sidecar"]).read_text())["settings"]["notes"]
    assert "antiphase" in notes[0] and "2 channels become one" in notes[1]


def test_what_a_request_does_not_use_is_told_on_the_page(studio):
    long = " ".join(f"word{i}" for i in range(200))
    settings = {"seconds": 0.3, "seed": 0, "steps": 2, "negative": "wind", "guidance": 1.0}
    takes = last(studio.generate(long, takes=2, **settings))
    line = finished(takes)
    assert line.count("words of the prompt are not read") == line.count("does nothing at guidance 1") == 1
    assert line.startswith("Done: 2 of 2.")
