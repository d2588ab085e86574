"""``audioldm data``: manifests from any source, findings on stderr, shards that training streams, exit codes."""

import errno
import json
import re
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from audioldm.cli.data import SOURCES, options_of, reader_of
from audioldm.datasets.manifest import Row, write

RATE = 16000


def save(path, hertz=440.0, gain=0.5):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, gain * np.sin(2 * np.pi * hertz * np.arange(RATE // 2) / RATE), RATE)
    return path


@pytest.fixture
def sounds(tmp_path):
    """Three good sounds, a silent one, and a text that is called a sound."""
    for number, name in enumerate(("dog bark", "rain", "bell")):
        save(tmp_path / "sounds" / f"{name}.wav", 300 + 100 * number)
    save(tmp_path / "sounds" / "nothing.wav", gain=0)
    (tmp_path / "sounds" / "torn.wav").write_text("no sound")
    return tmp_path / "sounds"


def test_every_source_has_a_reader_with_one_line_about_it_and_is_listed(command, capsys):
    assert command("data", "prepare", "--help") == 0
    shown = capsys.readouterr().out
    assert "--test-fold" in shown and "--youtube" in shown and "--weak" in shown
    for source in SOURCES:
        reader = reader_of(source)
        assert reader.__doc__ and "findings" not in options_of(source), source
        assert reader.__doc__.splitlines()[0].endswith((".", ")")), source
        assert re.search(rf"[ ,]{source}[,.]", shown.replace("\n", " "))


def test_prepare_folder_writes_sound_rows_and_names_the_others(command, sounds, tmp_path, capsys):
    out = tmp_path / "m.jsonl"
    assert command("data", "prepare", "folder", sounds, "-o", out, "--val", "0", "--test", "0", "--json") == 0
    shown = capsys.readouterr()
    summary = json.loads(shown.out)
    assert (summary["clips"], summary["findings"]) == (3, {"corrupt": 1, "silent": 1})
    for said in (
        f"silent: {sounds}/nothing.wav", f"corrupt: {sounds}/torn.wav", "found: 1 corrupt, 1 silent",
        "no clip is in val or test",
    ):  # fmt: skip
        assert said in shown.err
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert {row["captions"][0] for row in rows} == {"dog bark", "rain", "bell"}
    assert all(len(row["sha256"]) == 64 and row["loudness"] < 0 for row in rows)
    assert command("data", "prepare", "folder", sounds, "-o", out) == 2, "replaced only with --force"
    assert "--force" in capsys.readouterr().err
    assert command("data", "prepare", "folder", sounds, "-o", tmp_path) == 2


def test_nothing_left_is_a_failure_and_writes_nothing(command, tmp_path, capsys):
    save(tmp_path / "sounds" / "nothing.wav", gain=0)
    assert command("data", "prepare", "folder", tmp_path / "sounds", "-o", tmp_path / "m.jsonl") == 1
    assert "No sound is left" in capsys.readouterr().err and not (tmp_path / "m.jsonl").exists()


def test_prepare_esc10(command, tmp_path, capsys):
    for fold in (1, 2, 3):
        save(tmp_path / "esc" / "009 - Rooster" / f"{fold}-{fold}00-A.ogg", 300 + 100 * fold)
    words = ["--from", tmp_path / "esc", "-o", tmp_path / "m.jsonl", "--test-fold", 3, "--val-fold", 2]
    assert command("data", "prepare", "esc10", *words) == 0
    assert "train 1, val 1, test 1" in capsys.readouterr().out
    licences = {json.loads(line)["licence"] for line in (tmp_path / "m.jsonl").read_text().splitlines()}
    assert licences == {"CC-BY-3.0"}


def test_a_dry_run_counts_and_writes_nothing(command, sounds, tmp_path, capsys):
    (sounds / "metadata.csv").write_text("file_name,caption\nbell.wav,a bell\nrain.wav,nan\n")
    before = sorted(tmp_path.rglob("*"))
    assert command("data", "prepare", "folder", sounds, "--dry-run", "--val", 0, "--test", 0) == 0
    shown = capsys.readouterr()
    assert "rows (train 4, val 0, test 0); 0 sounds missing; 1 left out; nothing written" in shown.out
    assert "metadata.csv:3" in shown.err and sorted(tmp_path.rglob("*")) == before
    assert command("data", "prepare", "webdataset", sounds / "x.tar", "--dry-run") == 2


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("prepare fodler x", "'fodler' is not a source"),
        ("prepare folder", "needs the place of its data"),
        ("prepare folder sounds out -o m.jsonl", "reads one place, not 2"),
        ("prepare folder sounds -o m.jsonl --test-fold 3", "folder takes no --test-fold"),
        ("prepare clotho --from sounds --youtube", "clotho takes no --youtube"),
        ("prepare folder sounds", "no manifest of its own"),
        ("prepare folder sounds -o m.jsonl --val 2", "val=2 is out of range"),
        ("prepare opensounds2 --weak 3", "weak=3.0 is not a weight"),
        ("prepare folder nowhere -o m.jsonl", "nowhere"),
        ("prepare esc10 --from nowhere -o m.jsonl", "nowhere"),
        ("check nowhere.jsonl", "nowhere"),
    ],
)
def test_wrong_use_is_told_before_anything_is_read(
    command, sounds, tmp_path, capsys, monkeypatch, words, reason
):
    monkeypatch.chdir(tmp_path)
    assert command("data", *words.split()) == 2
    assert reason in capsys.readouterr().err and not (tmp_path / "m.jsonl").exists()


def test_check_counts_strict_fails_and_out_keeps_the_sound_rows(command, sounds, tmp_path, capsys):
    out = tmp_path / "m.jsonl"
    command("data", "prepare", "folder", sounds, "-o", out)
    assert command("data", "check", out, "--strict") == 0
    (sounds / "rain.wav").unlink()
    save(sounds / "bell.wav", 999)
    capsys.readouterr()
    assert command("data", "check", out) == 0
    shown = capsys.readouterr()
    assert "clips     1" in shown.out and "missing" in shown.err and "changed" in shown.err
    assert command("data", "check", out, "--strict", "-o", tmp_path / "clean.jsonl") == 1
    assert len((tmp_path / "clean.jsonl").read_text().splitlines()) == 1
    (sounds / "dog bark.wav").unlink()
    assert command("data", "check", out) == 1


def test_check_takes_folders_and_several_manifests(command, sounds, tmp_path, capsys):
    report = tmp_path / "findings.jsonl"
    assert command("data", "check", sounds, "--report", report, "--json") == 0
    assert json.loads(capsys.readouterr().out)["findings"] == {"corrupt": 1, "silent": 1}
    assert {json.loads(line)["kind"] for line in report.read_text().splitlines()} == {"corrupt", "silent"}
    train, test = tmp_path / "train.jsonl", tmp_path / "test.jsonl"
    row = {"path": str(sounds / "rain.wav"), "captions": ["rain"]}
    train.write_text(json.dumps(row) + "\n" + json.dumps(row | {"path": str(sounds / "bell.wav")}) + "\n")
    test.write_text(json.dumps(row | {"split": "test"}))
    assert command("data", "check", train, test, "--strict", "-o", tmp_path / "clean.jsonl") == 1
    assert "leak: " in capsys.readouterr().err
    kept = [json.loads(line) for line in (tmp_path / "clean.jsonl").read_text().splitlines()]
    assert {(row["path"][-8:], row["split"]) for row in kept} == {("rain.wav", "test"), ("bell.wav", "train")}


def test_many_findings_go_to_a_file(command, sounds, tmp_path, capsys):
    lines = "".join(f"{number}.wav,gone {number}\n" for number in range(30))
    (sounds / "metadata.csv").write_text("file_name,caption\n" + lines)
    assert command("data", "prepare", "folder", sounds, "-o", tmp_path / "m.jsonl") == 0
    shown = capsys.readouterr().err
    assert shown.count("missing: ") == 20 and "m.findings.jsonl" in shown
    assert len((tmp_path / "m.findings.jsonl").read_text().splitlines()) == 32


def test_listen_writes_one_page_with_sounds_and_pictures(command, sounds, tmp_path):
    manifest, page = tmp_path / "m.jsonl", tmp_path / "deep" / "page.html"
    names = ("bell", "rain", "torn")
    rows = [{"path": str(sounds / f"{name}.wav"), "captions": [f"<b>{name}", "two"]} for name in names]
    manifest.write_text("\n".join(map(json.dumps, rows)))
    assert command("data", "listen", manifest, "-o", page, "-n", 9) == 0
    text = page.read_text()
    assert text.count("<audio") == text.count("<img") == text.count("data:audio/flac;base64,") == 2
    assert "http" not in text and "&lt;b&gt;bell" in text and "Cannot read audio" in text
    assert command("data", "listen", manifest, "-o", page) == 2
    assert command("data", "listen", manifest, "-o", page, "--force", "-n", 1, "--seed", 5) == 0
    assert page.read_text().count('class="clip"') == 1
    assert command("data", "listen", manifest, "-o", tmp_path / "b.html", "--source", "else") == 2


@pytest.fixture
def manifest(tmp_path) -> Path:
    """Five sounds to train on, one to test on; one ending in capitals, one caption of two lines."""
    rows = []
    for i in range(6):
        path = save(tmp_path / "clips" / f"{i}.{'WAV' if i == 1 else 'flac'}", 100 * (i + 1))
        captions = ("a hum\nof two lines", "a tone") if i == 0 else (f"sound {i}",)
        rows.append(Row(str(path), captions, start=0.1 * (i == 2), split="test" if i == 5 else "train"))
    return write(rows, tmp_path / "m.jsonl")


def test_shards_hold_files_captions_and_parts_and_are_replaced_as_a_whole(
    command, manifest, tmp_path, capsys
):
    out = tmp_path / "shards"
    assert command("data", "shard", manifest, "-o", out, "--clips", "2") == 0
    assert "3 shards, 5 clips" in capsys.readouterr().out
    with tarfile.open(out / "shard-00000.tar") as tar:
        files = {name: tar.extractfile(name).read() for name in tar.getnames()}
    names = {"000000000.flac", "000000001.wav"}
    assert set(files) == names | {f"00000000{i}.{kind}" for i in (0, 1) for kind in ("txt", "json")}
    assert files["000000000.flac"] == (tmp_path / "clips" / "0.flac").read_bytes()
    assert files["000000000.txt"].decode().splitlines() == ["a hum of two lines", "a tone"]
    with tarfile.open(out / "shard-00001.tar") as tar:
        assert json.loads(tar.extractfile("000000002.json").read())["start"] == pytest.approx(0.1)
    assert command("data", "shard", manifest, "-o", out) == 2
    assert "--force" in capsys.readouterr().err and len(list(out.iterdir())) == 3
    assert command("data", "shard", manifest, "-o", out, "--force") == 0
    (path,) = out.iterdir()  # none of the three is left to be read twice
    with tarfile.open(path) as tar:
        assert len(tar.getnames()) == 15


@pytest.mark.parametrize(
    ("words", "code", "expected"),
    [
        (["--clips", "0"], 2, "clips=0"),
        (["--split", "val"], 2, "no row of split 'val'"),
        (["lost"], 1, "1 of 5 files are missing"),
        (["full"], 1, "could not be written"),
    ],
)
def test_refusals_of_shards_leave_nothing(
    command, manifest, tmp_path, capsys, monkeypatch, words, code, expected
):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if words == ["lost"]:
        (tmp_path / "clips" / "3.flac").unlink()
    if words == ["full"]:
        monkeypatch.setattr("webdataset.TarWriter.write", full)
    out, words = tmp_path / "shards", words if len(words) > 1 else []
    assert command("data", "shard", manifest, "-o", out, *words) == code
    assert expected in capsys.readouterr().err
    assert not out.exists() or not list(out.iterdir())


def test_a_recipe_trains_from_shards_and_knows_them(command, manifest, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command("data", "shard", manifest, "-o", "shards", "--clips", "2") == 0
    words = "train tiny/vae data=shards seconds=0.32 batch_size=2 threads=1 batches=2 val_every=2"
    words = [*words.split(), "task.adversarial_start=99", "task.vae.channels=[8,8]"]
    capsys.readouterr()
    for place, missing in (("shards/*.tar", False), ("none/*.tar", True)):
        assert command(*words, f"data.shards=[{place}]", "--dry-run") == 0
        assert (f"missing: {place}" in capsys.readouterr().err) == missing
    assert command(*words, "data.shards=[shards/*.tar]") == 0
    about = json.loads(Path("runs/tiny/vae/provenance.json").read_text())
    assert sorted(about["data"]) == [f"shards/shard-0000{i}.tar" for i in range(3)]
    assert command("data", "shard", manifest, "-o", "shards", "--clips", "3", "--force") == 0
    assert command(*words, "data.shards=[shards/*.tar]") == 2
    assert "changed since" in capsys.readouterr().err
