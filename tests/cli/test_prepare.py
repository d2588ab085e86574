"""One door for every source: what it takes, what it refuses, what a dry run says."""

from pathlib import Path

import pytest
import soundfile
import torch

from audioldm.cli.prepare import SOURCES, options_of, reader_of


@pytest.fixture
def sounds(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    for i in range(3):
        soundfile.write(tmp_path / "in" / f"bell {'abc'[i]}.wav", torch.rand(1600).numpy() - 0.5, 16000)
    (tmp_path / "in" / "metadata.csv").write_text("file_name,caption\nbell a.wav,a bell\nbell b.wav,nan\n")
    return tmp_path / "in"


def test_every_source_has_a_reader_with_one_line_about_it():
    for source in SOURCES:
        reader = reader_of(source)
        assert reader.__doc__ and "findings" not in options_of(reader), source
        assert reader.__doc__.splitlines()[0].endswith((".", ")")), source


def test_the_list_names_every_source_and_its_options(command, capsys):
    assert command("data", "prepare", "--list") == 0
    shown = capsys.readouterr().out
    assert all(f"\n{source} " in f"\n{shown}" for source in SOURCES)
    assert "--test-fold" in shown and "--youtube" in shown and "--weak" in shown


def test_a_dry_run_counts_and_writes_nothing(command, sounds, tmp_path, capsys):
    before = sorted(tmp_path.rglob("*"))
    assert command("data", "prepare", "folder", sounds, "--dry-run", "--val", 0, "--test", 0) == 0
    shown = capsys.readouterr()
    assert "2 rows (train 2, val 0, test 0); 0 sounds missing; 1 left out; nothing written" in shown.out
    assert "metadata.csv:3" in shown.err and sorted(tmp_path.rglob("*")) == before
    assert command("data", "prepare", "webdataset", sounds / "x.tar", "--dry-run") == 2


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("fodler", "x"), "'fodler' is not a source"),
        (("folder",), "needs the place of its data"),
        (("folder", "in", "out", "-o", "m.jsonl"), "reads one place, not 2"),
        (("folder", "in", "-o", "m.jsonl", "--test-fold", "3"), "folder takes no --test-fold"),
        (("clotho", "--from", "in", "--youtube"), "clotho takes no --youtube"),
        (("folder", "in"), "no manifest of its own"),
        (("folder", "in", "-o", "m.jsonl", "--val", "2"), "val=2 is out of range"),
        (("opensounds2", "--from", "in", "--weak", "3"), "weak=3.0 is not a weight"),
    ],
)
def test_wrong_use_is_told_before_anything_is_read(
    command, sounds, tmp_path, capsys, monkeypatch, words, reason
):
    monkeypatch.chdir(tmp_path)
    assert command("data", "prepare", *words) == 2
    assert reason in capsys.readouterr().err and not (tmp_path / "m.jsonl").exists()
