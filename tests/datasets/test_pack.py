"""Sounds travel as one file and come back as they were, nearly."""

import tarfile
from pathlib import Path

import pytest
import torch
from sounds import sine

from audioldm.datasets.check import check
from audioldm.datasets.decode import decode, encode
from audioldm.datasets.manifest import Row, read, write
from audioldm.datasets.pack import pack, unpack
from audioldm.errors import AudioLDMError
from audioldm.progress import listening


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    rows = []
    for i, split in enumerate(("train", "train", "val", "test")):
        path = encode(tmp_path / f"{i}.wav", torch.from_numpy(sine(1.0, 300.0 * (i + 1), gain=0.4)), 16000)
        rows.append(
            Row(str(path), (f"tone {i}",), split=split, start=0.25 * (i == 0), seconds=0.5, group=str(i))
        )
    rows = check(rows).rows
    return write([*rows, rows[1]], tmp_path / "mine.jsonl")  # the copy is packed once


def test_a_pack_keeps_rows_splits_and_sounds(manifest: Path, tmp_path: Path):
    seen = []
    with listening(lambda unit, done, total: seen.append((unit, done, total))):
        size, _ = pack([manifest], tmp_path / "p.tar", kbps=64, splits=("train", "val"))
    assert size == (tmp_path / "p.tar").stat().st_size and seen[-1] == ("sounds", 3, 3)
    (found,), findings = unpack(tmp_path / "p.tar", tmp_path / "there")
    assert not findings
    rows, before = read(found), [row for row in read(manifest)[:-1] if row.split != "test"]
    assert [(r.captions, r.split, r.group, r.loudness) for r in rows] == [
        (r.captions, r.split, r.group, r.loudness) for r in before
    ]
    assert not check(rows).findings  # the new bytes have their own hashes
    for row, own in zip(rows, before, strict=True):
        made, real = decode(row.path, 16000), decode(own.path, 16000, start=own.start, seconds=own.seconds)
        assert abs(len(made) - len(real)) <= 160  # Opus works in frames
        n = min(len(made), len(real))
        assert (
            torch.corrcoef(torch.stack([made[:n], real[:n]]))[0, 1] > 0.95
        )  # its first and last frames smear


def test_refusals_name_the_file(tmp_path: Path):
    (tmp_path / "bad.tar").write_bytes(b"no tar")
    with pytest.raises(AudioLDMError, match=r"bad\.tar is no pack"):
        unpack(tmp_path / "bad.tar", tmp_path / "x")
    with tarfile.open(tmp_path / "evil.tar", "w") as tar:
        (tmp_path / "inside").write_text("x")
        tar.add(tmp_path / "inside", arcname="../outside")
    with pytest.raises(AudioLDMError, match=r"evil\.tar is no pack"):
        unpack(tmp_path / "evil.tar", tmp_path / "x")
    with pytest.raises(AudioLDMError, match="kbps=400"):
        pack([], tmp_path / "p.tar", kbps=400)
