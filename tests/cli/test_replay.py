"""``--replay`` makes a sound again and says whether it is the same; ``--resume`` counts what is whole and alike."""

import json
import os

import pytest
import soundfile

SEED = ("--seed", "3")


@pytest.fixture
def clip(generate, out):
    """A clip of three in a batch of two, with settings of all kinds; returns its sidecar."""
    words = (
        "--sampler",
        "ddpm",
        "--set",
        "grid=karras",
        "--set",
        "guidance_interval=0.3,5",
        "--negative",
        "wind",
    )
    assert generate("rain", "-n", "3", "--set", "batch_size=2", *words, *SEED)[0] == 0
    return out / "rain_seed4.json"


@pytest.fixture
def replay(command, out, capsys):
    """Exit code and what is said of a replay into ``out / "again"``."""

    def execute(sidecar, *words):
        code = command("generate", "--replay", sidecar, "-o", out / "again", *words)
        return code, capsys.readouterr().err

    return execute


def test_a_replay_has_the_same_bytes(replay, clip, out):
    record = json.loads(clip.read_text())
    about = {"threads": 1, "batch_size": 2, "batch_row": 1}
    assert record["machine"] == {"device": record["machine"]["device"], **about}
    assert replay(clip) == (0, f"audioldm: {clip}: the same bytes.\n")
    assert (out / "again" / "rain_seed4.wav").read_bytes() == (out / "rain_seed4.wav").read_bytes()
    again = json.loads((out / "again" / "rain_seed4.json").read_text())
    assert again["options"] == record["options"] and again["machine"] == record["machine"]


def test_a_replay_says_how_far_it_is_and_what_differs(replay, clip):
    record = json.loads(clip.read_text())
    record["options"]["steps"], record["versions"]["torch"] = 3, "1.0"
    clip.write_text(json.dumps(record))
    code, err = replay(clip)
    assert code == 0 and "other bytes" in err
    assert "settings.steps was 2, is 3" in err and "versions.torch was '1.0'" in err


@pytest.mark.parametrize(
    "words", [("--interpolate-to", "wind:0,0.5"), ("--set", "schedule=0-1 rain; 1-2 wind"), ()]
)
def test_every_kind_of_prompt_can_be_replayed(records, replay, tmp_path, words):
    (tmp_path / "many.jsonl").write_text('{"prompt": "rain", "steps": 3, "out": "x", "guidance": 1.5}')
    source = () if "--set" in words else ("rain",) if words else ("--prompts", tmp_path / "many.jsonl")
    for row in records(*source, *words, *SEED):
        code, err = replay(row["sidecar"], "--force")
        assert code == 0 and "the same bytes" in err


@pytest.mark.parametrize(
    "content", ["", "{}", "[]", '{"prompt": "x", "options": {}, "sound": {"sha256": 3}}']
)
def test_a_file_that_is_no_sidecar_is_refused(command, tmp_path, capsys, content):
    (tmp_path / "x.json").write_text(content)
    assert command("generate", "--replay", tmp_path / "x.json") == 2
    assert "is no sidecar of a clip" in capsys.readouterr().err
    assert command("generate", "--replay", tmp_path / "gone.json") == 2
    assert command("generate", "rain", "--replay", tmp_path / "x.json") == 2


def test_damaged_values_in_a_sidecar_are_refused(replay, clip):
    record = json.loads(clip.read_text())
    for changes in ({"steps": "many"}, {"steps": 10**9}, {"sampler": "magic"}, {"audio_format": "exe"}):
        clip.write_text(json.dumps({**record, "options": {**record["options"], **changes}}))
        code, err = replay(clip)
        assert code == 2 and err.count("\n") == 1
    clip.write_text(json.dumps({**record, "machine": {**record["machine"], "batch_size": 10**9}}))
    assert replay(clip)[0] == 2


def test_resume_makes_what_is_damaged_or_missing_and_leaves_the_rest(generate, out):
    assert generate("rain", "-n", "6", *SEED)[0] == 0
    sounds = sorted(out.glob("*.wav"))
    before, at = [path.read_bytes() for path in sounds], sounds[5].stat().st_mtime_ns
    sounds[0].write_bytes(b"")
    sounds[1].write_bytes(before[1][:-100])
    sounds[2].with_suffix(".json").write_text("{")
    for path in sounds[3:5]:
        path.unlink()
    os.mkfifo(sounds[4])
    stale = out / ".rain_seed3.json.999999999-0123abcd.part"
    stale.write_text("half")
    code, printed, err = generate("rain", "-n", "6", "--resume", *SEED)
    assert code == 0 and not stale.exists(), err
    assert [line for line in printed.split() if line.endswith(".wav")] == [str(path) for path in sounds[:5]]
    assert [path.read_bytes() for path in sounds] == before and sounds[5].stat().st_mtime_ns == at
    code, printed, err = generate("rain", "-n", "6", "--resume", "--set", "batch_size=2", *SEED)
    assert (code, printed) == (0, "") and "every clip is there already" in err


def test_resume_does_not_count_a_clip_of_other_settings(generate, out):
    assert generate("rain", *SEED)[0] == 0
    path = out / "rain_seed3.wav"
    before = path.read_bytes()
    code, _, err = generate("rain", "--resume", *SEED, "--steps", "3")
    assert code == 2 and "made with steps=2" in err and path.read_bytes() == before
    assert generate("rain", "--resume", "--force", *SEED, "--steps", "3")[0] == 0
    assert path.read_bytes() != before and soundfile.info(path).frames == 3200
    assert json.loads(path.with_suffix(".json").read_text())["settings"]["steps"] == 3
