"""``audioldm edit``: each edit leaves its files, refuses before work, and with --splice leaves other samples alone."""

import json

import numpy as np
import pytest
import soundfile


@pytest.fixture
def sounds(tmp_path):
    """A stereo file at an odd rate, a short mono one, and a band-limited one."""
    draw, time = np.random.default_rng(0), np.arange(26460) / 22050
    tone = 0.3 * np.sin(2 * np.pi * 440 * time)
    stereo = np.stack([tone, 0.5 * tone], 1) + 0.01 * draw.normal(size=(26460, 2))
    soundfile.write(tmp_path / "tone.flac", stereo, 22050, subtype="PCM_24")
    soundfile.write(tmp_path / "short.wav", 0.1 * draw.normal(size=6000), 8000, subtype="PCM_16")
    return tmp_path


@pytest.fixture
def edit(command, tiny_model, tmp_path, capsys, sounds, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(*words, quick=("--steps", 2)):
        code = command("edit", *words, "-m", tiny_model, "-o", tmp_path / "out", *quick)
        return code, *capsys.readouterr()

    return run


ALL = {
    "transfer": ("transfer", "tone.flac", "a rooster"),
    "transfer --invert": ("transfer", "tone.flac", "rain", "--invert", "--strength", 0.8),
    "inpaint": ("inpaint", "tone.flac", "rain", "--from", 0.2, "--to", 0.4, "--rounds", 2),
    "outpaint": ("outpaint", "tone.flac", "rain", "--before", 0.3, "--after", 1),
    "continue": ("continue", "tone.flac", "rain", "--seconds", 0.5),
    "upscale": ("upscale", "short.wav"),
    "vary": ("vary", "short.wav"),
    "morph": ("morph", "tone.flac", "short.wav"),
    "denoise": ("denoise", "short.wav"),
    "mix": ("mix", "tone.flac", "short.wav", "--at", 0, "--at", 0.5),
    "inpaint --splice": (
        "inpaint", "tone.flac", "rain", "--from", 0.2, "--to", 0.4, "--splice", "--format", "flac",
    ),
    "morph in words": ("morph", "tone.flac", "short.wav", "--prompts", "a, b", "c", "--at", 0.5),
}  # fmt: skip


SECONDS = {"outpaint": 2.5, "continue": 1.7, "mix": 1.25, "transfer": 1.2, "inpaint": 1.2}


@pytest.mark.parametrize("name", ALL)
def test_every_edit_leaves_sound_picture_and_settings_and_can_be_replayed(
    edit, command, tmp_path, capsys, name
):
    code, printed, err = edit(*ALL[name], "--seed", 5)
    assert code == 0, err
    wav, png, sidecar = (tmp_path / line for line in printed.split())
    info, record = soundfile.info(wav), json.loads(sidecar.read_text())
    assert record["settings"]["edit"] == name.split()[0]
    inputs = [one["sha256"] for one in record["settings"]["inputs"]]
    assert [len(one) for one in inputs] == [64] * (1 + (name.split()[0] in ("morph", "mix")))
    assert png.read_bytes().startswith(b"\x89PNG")
    assert wav.name.startswith(ALL[name][1].split(".")[0] + "_")
    if "--splice" not in name:
        assert (info.samplerate, info.channels) == (16000, 1)
        assert info.frames == round(SECONDS.get(name.split()[0], 0.75) * 16000)
    assert command("generate", "--replay", sidecar, "-o", tmp_path / "again") == 0
    printed, err = capsys.readouterr()
    assert "the same bytes" in err
    again = json.loads((tmp_path / printed.split()[-1]).read_text())
    assert again["options"] == record["options"] and again["settings"] == record["settings"]


def test_takes_count_seeds(edit, tmp_path):
    code, printed, _ = edit("vary", "short.wav", "-n", 3, "--seed", 5, "--set", "figure=false")
    names = [line.rsplit("_", 1)[1] for line in printed.split() if line.endswith(".wav")]
    assert code == 0
    assert names == ["seed5.wav", "seed6.wav", "seed7.wav"]
    takes = [path.read_bytes() for path in sorted((tmp_path / "out").glob("*.wav"))]
    assert len(set(takes)) == 3
    assert edit("vary", "short.wav", "--seed", 6, "--set", "figure=false", "--force")[0] == 0
    assert sorted((tmp_path / "out").glob("*seed6.wav"))[0].read_bytes() == takes[1]


def test_splice_keeps_every_other_sample_of_every_channel(edit, tmp_path):
    code, printed, err = edit(
        "inpaint", "tone.flac", "rain", "--from", 0.2, "--to", 0.4, "--from", 0.8, "--to", 0.9, "--splice",
    )  # fmt: skip
    assert code == 0, err
    result, rate = soundfile.read(tmp_path / printed.split()[0], dtype="int32")
    before, _ = soundfile.read(tmp_path / "tone.flac", dtype="int32")
    assert (rate, result.shape) == (22050, before.shape)
    time = np.arange(len(result)) / rate
    near = ((time > 0.169) & (time < 0.431)) | ((time > 0.769) & (time < 0.931))
    assert np.array_equal(result[~near], before[~near])
    inside = (time > 0.2) & (time < 0.4)
    assert (result[inside] != before[inside]).mean() > 0.99


def test_splice_of_a_continuation_keeps_the_whole_file(edit, tmp_path):
    code, printed, err = edit("outpaint", "short.wav", "--before", 0.25, "--after", 0.5, "--splice")
    assert code == 0, err
    result, rate = soundfile.read(tmp_path / printed.split()[0], dtype="int16")
    before, _ = soundfile.read(tmp_path / "short.wav", dtype="int16")
    assert (rate, len(result)) == (8000, 12000)
    assert np.array_equal(result[2000 + 240 : 8000 - 240], before[240:-240])


def test_schedule_instead_of_a_prompt(edit):
    code, printed, err = edit(
        "continue", "tone.flac", "--set", "schedule=0-1 rain; 1-3 noise", "--seconds", 1.8, "--json"
    )
    assert code == 0, err
    assert json.loads(printed)[0]["sound"]["samples"] == 48000


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("transfer", "gone.wav", "x"), "gone.wav is not a file"),
        (("transfer", "tone.flac", "x", "--strength", 2), "strength=2"),
        (("transfer", "tone.flac", "x", "--sampler", "best"), "sampler='best' is unknown"),
        (("transfer", "tone.flac", "x", "--splice"), "--splice needs a region"),
        (("transfer", "tone.flac", "x", "--set", "schedule=0-5 rain"), "both given"),
        (("inpaint", "tone.flac", "x"), "no region"),
        (("inpaint", "tone.flac", "x", "--from", 1), "1 --from and 0 --to"),
        (("inpaint", "tone.flac", "x", "--from", 0.5, "--to", 0.2), "empty"),
        (("inpaint", "tone.flac", "x", "--from", 5, "--to", 6), "begins after"),
        (("outpaint", "tone.flac", "x"), "add nothing"),
        (("upscale", "short.wav", "--cutoff", 9000), "cutoff=9000"),
        (("morph", "tone.flac", "short.wav", "--at", -1), "at=-1"),
        (("mix", "tone.flac", "short.wav", "--gain", 0), "1 --gain"),
        (("transfer", "tone.flac", "x", "--normalize", "--splice", "--from", 0, "--to", 1), "--normalize"),
    ],
)
def test_wrong_use_is_one_line_and_leaves_nothing(edit, tmp_path, words, expected):
    code, printed, err = edit(*words)
    assert code == 2
    assert printed == ""
    # what becomes of the file's two channels may have been said before
    lines = [line for line in err.splitlines() if "channels become one" not in line]
    assert len(lines) == 1 and expected in lines[0]
    assert not list((tmp_path / "out").glob("*"))


def test_a_take_is_kept_and_a_replay_names_an_input_that_has_changed(edit, command, tmp_path, capsys):
    assert edit("vary", "short.wav", "--set", "figure=false")[0] == 0
    code, _, err = edit("vary", "short.wav")
    assert code == 2 and "--force" in err
    [sidecar] = (tmp_path / "out").glob("*.json")
    soundfile.write(tmp_path / "short.wav", np.zeros(6000) + 0.1, 8000)
    assert command("generate", "--replay", sidecar) == 0
    err = capsys.readouterr().err
    assert "other bytes" in err and "settings.inputs was" in err
    (tmp_path / "short.wav").unlink()
    assert command("generate", "--replay", sidecar, "--force") == 2
    record = json.loads(sidecar.read_text())
    sidecar.write_text(json.dumps({**record, "options": {**record["options"], "file": 3}}))
    capsys.readouterr()
    assert command("generate", "--replay", sidecar, "--force") == 2
    assert "file=3 cannot be" in capsys.readouterr().err


def test_channels_that_cancel_are_told_and_heard(edit, tmp_path):
    wave = 0.2 * np.random.default_rng(0).normal(size=16000)
    soundfile.write(tmp_path / "wide.wav", np.stack([wave, -wave], 1), 16000)
    code, _, err = edit("vary", "wide.wav")
    notes = [line for line in err.splitlines() if "antiphase" in line or "2 channels become one" in line]
    assert code == 0
    assert len(notes) == 2 and notes[1].endswith("--splice keeps those outside of a region.")
    code, printed, err = edit("vary", "wide.wav", "--from", 0.2, "--to", 0.4, "--splice", "--force")
    assert code == 0 and "antiphase" in err and "become one" not in err
    assert err.count("the new part is the same in its 2 channels") == 1
    after, before = soundfile.read(tmp_path / printed.split()[0])[0], soundfile.read(tmp_path / "wide.wav")[0]
    assert after.shape == before.shape and np.array_equal(after[-4000:], before[-4000:])


@pytest.mark.parametrize(
    "name", ["transfer", "inpaint", "outpaint", "continue", "upscale", "vary", "denoise", "mix"]
)
def test_every_edit_tells_once_what_becomes_of_the_channels(edit, name):
    code, _, err = edit(*ALL[name], "--dry-run")
    assert code == 0 and err.count("its 2 channels become one") == (0 if "short.wav" in ALL[name][1] else 1)
    assert ("--splice" in err) == (name in ("transfer", "inpaint", "outpaint", "continue"))


def test_an_edit_tells_what_it_does_not_use(edit, tmp_path):
    long = " ".join(f"word{i}" for i in range(200))
    code, _, err = edit("transfer", "tone.flac", long, "--negative", "wind", "--guidance", "1", "-n", "2")
    assert code == 0
    assert err.count("words of the prompt are not read") == 1 and err.count("does nothing at guidance 1") == 1


def test_silence_is_told_and_what_is_no_sound_refused(edit, tmp_path):
    soundfile.write(tmp_path / "constant.wav", np.full(16000, 0.5), 16000)
    assert edit("transfer", "constant.wav", "x", "--dry-run")[2].count("it is silent") == 1
    soundfile.write(tmp_path / "huge.wav", np.full(16000, 1e30), 16000, subtype="FLOAT")
    code, _, err = edit("transfer", "huge.wav", "x", "--dry-run")
    assert code == 2 and "peaks at 1.0e+30 of full scale" in err
