"""``audioldm data shard``: tars that hold a manifest's clips and captions, and that training streams."""

import errno
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from audioldm.datasets.manifest import Row, write


@pytest.fixture
def manifest(tmp_path) -> Path:
    """Five sounds to train on, one to test on; one ending in capitals, one caption of two lines."""
    rows = []
    for i in range(6):
        path = tmp_path / "sounds" / f"{i}.{'WAV' if i == 1 else 'flac'}"
        path.parent.mkdir(exist_ok=True)
        sf.write(path, 0.1 * np.sin(np.arange(8000) * (i + 1) / 20), 16000)
        captions = ("a hum\nof two lines", "a tone") if i == 0 else (f"sound {i}",)
        rows.append(Row(str(path), captions, start=0.1 * (i == 2), split="test" if i == 5 else "train"))
    return write(rows, tmp_path / "m.jsonl")


def test_shards_hold_files_captions_and_parts(command, manifest, tmp_path, capsys):
    out = tmp_path / "shards"
    assert command("data", "shard", manifest, "-o", out, "--clips", "2") == 0
    assert "3 shards, 5 clips" in capsys.readouterr().out
    with tarfile.open(out / "shard-00000.tar") as tar:
        matches = {name: tar.extractfile(name).read() for name in tar.getnames()}
    assert set(matches) == {f"00000000{i}.{kind}" for i, kind in ((0, "flac"), (1, "wav"))} | {
        f"00000000{i}.{kind}" for i in (0, 1) for kind in ("txt", "json")
    }
    assert matches["000000000.flac"] == (tmp_path / "sounds" / "0.flac").read_bytes()
    assert matches["000000000.txt"].decode().splitlines() == ["a hum of two lines", "a tone"]
    with tarfile.open(out / "shard-00001.tar") as tar:
        assert json.loads(tar.extractfile("000000002.json").read())["start"] == pytest.approx(0.1)


def test_shards_are_replaced_as_a_whole_and_only_with_force(command, manifest, tmp_path, capsys):
    out = tmp_path / "shards"
    assert command("data", "shard", manifest, "-o", out, "--clips", "1") == 0
    assert command("data", "shard", manifest, "-o", out) == 2
    assert "--force" in capsys.readouterr().err and len(list(out.iterdir())) == 5
    assert command("data", "shard", manifest, "-o", out, "--force") == 0
    assert [path.name for path in out.iterdir()] == [
        "shard-00000.tar"
    ]  # none of the five is left to be read twice
    with tarfile.open(out / "shard-00000.tar") as tar:
        assert len(tar.getnames()) == 15


@pytest.mark.parametrize(
    ("words", "code", "expected"),
    [
        (["--clips", "0"], 2, "clips=0"),
        (["--split", "val"], 2, "no row of split 'val'"),
        (["--lose"], 1, "1 of 5 files are missing"),
        (["--full"], 1, "could not be written"),
    ],
)
def test_refusals_leave_nothing(
    command, manifest, tmp_path, capsys, monkeypatch, words: list[str], code: int, expected: str
):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    out = tmp_path / "shards"
    if words == ["--lose"]:
        words = []
        (tmp_path / "sounds" / "3.flac").unlink()
    if words == ["--full"]:
        words = []
        monkeypatch.setattr("audioldm.datasets.shards.add", full)
    assert command("data", "shard", manifest, "-o", out, *words) == code
    assert expected in capsys.readouterr().err
    assert not out.exists() or not list(out.iterdir())


def test_a_recipe_trains_from_shards_and_knows_them(command, manifest, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command("data", "shard", manifest, "-o", "shards", "--clips", "2") == 0
    words = [
        "tiny/vae",
        "data=shards",
        "data.shards=[shards/*.tar]",
        "seconds=0.32",
        "batch_size=2",
        "threads=1",
    ]
    few = ["batches=2", "val_every=2", "task.adversarial_start=99", "task.vae.channels=[8,8]"]
    capsys.readouterr()
    assert command("train", *words, *few, "--dry-run") == 0
    assert "missing:" not in capsys.readouterr().err
    assert command("train", *words[:2], "data.shards=[none/*.tar]", *words[3:], *few, "--dry-run") == 0
    assert "missing: none/*.tar" in capsys.readouterr().err
    assert command("train", *words, *few) == 0
    about = json.loads(Path("runs/tiny/vae/provenance.json").read_text())
    assert sorted(about["data"]) == [f"shards/shard-0000{i}.tar" for i in range(3)]
    assert command("data", "shard", manifest, "-o", "shards", "--clips", "3", "--force") == 0
    assert command("train", *words, *few) == 2
    assert "changed since" in capsys.readouterr().err
