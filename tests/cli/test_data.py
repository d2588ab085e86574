"""``audioldm data``: manifests from folders, findings on stderr, exit codes."""

import json

import numpy as np
import pytest
import soundfile

RATE = 16000


def save(path, hertz=440.0, gain=0.5):
    path.parent.mkdir(parents=True, exist_ok=True)
    wave = gain * np.sin(2 * np.pi * hertz * np.arange(RATE // 2) / RATE)
    soundfile.write(path, wave, RATE)
    return path


@pytest.fixture
def sounds(tmp_path):
    """Three good sounds, a silent one, and a text that is called a sound."""
    for number, name in enumerate(("dog bark", "rain", "bell")):
        save(tmp_path / "sounds" / f"{name}.wav", 300 + 100 * number)
    save(tmp_path / "sounds" / "nothing.wav", gain=0)
    (tmp_path / "sounds" / "torn.wav").write_text("no sound")
    return tmp_path / "sounds"


def test_prepare_folder_writes_sound_rows_and_names_the_others(command, sounds, tmp_path, capsys):
    out = tmp_path / "m.jsonl"
    assert command("data", "prepare", "folder", sounds, "-o", out, "--val", "0", "--test", "0", "--json") == 0
    shown = capsys.readouterr()
    summary = json.loads(shown.out)
    assert summary["clips"] == 3
    assert summary["findings"] == {"corrupt": 1, "silent": 1}
    assert f"silent: {sounds}/nothing.wav" in shown.err
    assert f"corrupt: {sounds}/torn.wav" in shown.err
    assert "found: 1 corrupt, 1 silent" in shown.err
    assert "no clip is in val or test" in shown.err
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert {row["captions"][0] for row in rows} == {"dog bark", "rain", "bell"}
    assert all(len(row["sha256"]) == 64 and row["loudness"] < 0 for row in rows)


def test_nothing_left_is_a_failure_and_writes_nothing(command, tmp_path, capsys):
    save(tmp_path / "sounds" / "nothing.wav", gain=0)
    out = tmp_path / "m.jsonl"
    assert command("data", "prepare", "folder", tmp_path / "sounds", "-o", out) == 1
    assert "No sound is left" in capsys.readouterr().err
    assert not out.exists()


def test_a_manifest_is_replaced_only_with_force(command, sounds, tmp_path, capsys):
    out = tmp_path / "m.jsonl"
    out.write_text("mine")
    assert command("data", "prepare", "folder", sounds, "-o", out) == 2
    assert "--force" in capsys.readouterr().err
    assert out.read_text() == "mine"
    assert command("data", "prepare", "folder", sounds, "-o", out, "--force") == 0
    assert command("data", "prepare", "folder", sounds, "-o", tmp_path) == 2


def test_check_counts_strict_fails_and_out_keeps_the_sound_rows(command, sounds, tmp_path, capsys):
    out = tmp_path / "m.jsonl"
    command("data", "prepare", "folder", sounds, "-o", out)
    assert command("data", "check", out, "--strict") == 0
    (sounds / "rain.wav").unlink()
    save(sounds / "bell.wav", 999)
    capsys.readouterr()
    assert command("data", "check", out) == 0
    shown = capsys.readouterr()
    assert "clips     1" in shown.out
    assert "missing" in shown.err
    assert "changed" in shown.err
    assert command("data", "check", out, "--strict", "-o", tmp_path / "clean.jsonl") == 1
    assert len((tmp_path / "clean.jsonl").read_text().splitlines()) == 1
    (sounds / "dog bark.wav").unlink()
    assert command("data", "check", out) == 1


def test_prepare_esc10(command, tmp_path, capsys):
    for fold in (1, 2, 3):
        save(tmp_path / "esc" / "009 - Rooster" / f"{fold}-{fold}00-A.ogg", 300 + 100 * fold)
    out = tmp_path / "m.jsonl"
    words = ["--from", tmp_path / "esc", "-o", out, "--test-fold", 3, "--val-fold", 2]
    assert command("data", "prepare", "esc10", *words) == 0
    assert "train 1, val 1, test 1" in capsys.readouterr().out
    assert {json.loads(line)["licence"] for line in out.read_text().splitlines()} == {"CC-BY-3.0"}


@pytest.mark.parametrize(
    "words",
    [
        ["data", "check", "nowhere.jsonl"],
        ["data", "prepare", "folder", "nowhere", "-o", "m.jsonl"],
        ["data", "prepare", "esc10", "--from", "nowhere", "-o", "m.jsonl"],
    ],
)
def test_what_is_not_there_is_wrong_use(command, tmp_path, monkeypatch, capsys, words):
    monkeypatch.chdir(tmp_path)
    assert command(*words) == 2
    assert "nowhere" in capsys.readouterr().err


def test_check_takes_folders_and_several_manifests(command, sounds, tmp_path, capsys):
    report = tmp_path / "findings.jsonl"
    assert command("data", "check", sounds, "--report", report, "--json") == 0
    assert json.loads(capsys.readouterr().out)["findings"] == {"corrupt": 1, "silent": 1}
    assert {json.loads(line)["kind"] for line in report.read_text().splitlines()} == {"corrupt", "silent"}
    train, test = tmp_path / "train.jsonl", tmp_path / "test.jsonl"
    row = {"path": str(sounds / "rain.wav"), "captions": ["rain"]}
    train.write_text(json.dumps(row) + "\n" + json.dumps(row | {"path": str(sounds / "bell.wav")}) + "\n")
    test.write_text(json.dumps(row | {"split": "test"}))
    assert command("data", "check", train, "--strict") == 0
    assert command("data", "check", train, test, "--strict", "-o", tmp_path / "clean.jsonl") == 1
    assert "leak: " in capsys.readouterr().err
    kept = [json.loads(line) for line in (tmp_path / "clean.jsonl").read_text().splitlines()]
    assert {(row["path"][-8:], row["split"]) for row in kept} == {("rain.wav", "test"), ("bell.wav", "train")}


def test_many_findings_go_to_a_file(command, sounds, tmp_path, capsys):
    lines = "".join(f"{number}.wav,gone {number}\n" for number in range(30))
    (sounds / "metadata.csv").write_text("file_name,caption\n" + lines)
    out = tmp_path / "m.jsonl"
    assert command("data", "prepare", "folder", sounds, "-o", out) == 0
    shown = capsys.readouterr().err
    assert shown.count("missing: ") == 20 and "m.findings.jsonl" in shown
    assert len((tmp_path / "m.findings.jsonl").read_text().splitlines()) == 32


def test_listen_writes_one_page_with_sounds_and_pictures(command, sounds, tmp_path, capsys):
    manifest, page = tmp_path / "m.jsonl", tmp_path / "deep" / "page.html"
    rows = [
        {"path": str(sounds / f"{name}.wav"), "captions": [f"<b>{name}", "two"]}
        for name in ("bell", "rain", "torn")
    ]
    manifest.write_text("\n".join(map(json.dumps, rows)))
    assert command("data", "listen", manifest, "-o", page, "-n", 9) == 0
    text = page.read_text()
    assert text.count("<audio") == text.count("<img") == 2
    assert text.count("data:audio/flac;base64,") == 2 and "http" not in text
    assert "&lt;b&gt;bell" in text and "Cannot read audio" in text
    assert command("data", "listen", manifest, "-o", page) == 2
    assert command("data", "listen", manifest, "-o", page, "--force", "-n", 1, "--seed", 5) == 0
    assert page.read_text().count('class="clip"') == 1
    assert command("data", "listen", manifest, "-o", tmp_path / "b.html", "--source", "else") == 2
