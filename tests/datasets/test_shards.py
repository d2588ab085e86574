"""Shards are read as written, in an order that follows from the seed, from any batch on, and shared among readers."""

import io
import itertools
import json
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from sounds import save, sine
from torch.utils.data import DataLoader

from audioldm.datasets.check import check
from audioldm.datasets.draws import Place
from audioldm.datasets.manifest import Row
from audioldm.datasets.shards import Shards, samples, write_shards
from audioldm.errors import AudioLDMError
from audioldm.spec import AudioSpec


def tar_of(path: Path, members, mode: str = "w", **settings) -> str:
    with tarfile.open(path, mode, **settings) as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return str(path)


@pytest.fixture
def shards(tmp_path):
    """Twelve clips of a level of their own, three a shard."""
    levels = [np.full(16000, (i + 1) / 16) for i in range(12)]
    paths = [save(tmp_path / f"{i}.flac", level, subtype="PCM_16") for i, level in enumerate(levels)]
    rows = [Row(str(path), (f"clip {i}", f"sound {i}")) for i, path in enumerate(paths)]
    return [str(p) for p in write_shards(rows, tmp_path / "shards", clips=3)]


def stream(shards, **more) -> Shards:
    return Shards(shards, AudioSpec(), 0.5, **{"batch_size": 2, "seed": 0, "buffer": 4, **more})


def take(data, count: int) -> list:
    return list(itertools.islice(iter(data), count))


def test_a_pass_holds_every_clip_with_its_own_caption(shards):
    batches = take(stream(shards), 12)
    ids = [key for batch in batches for key in batch.ids]
    assert sorted(ids[:12]) == sorted(ids[12:]) == [f"{i:09d}" for i in range(12)]
    assert ids[:12] != ids[12:] and ids[:12] != sorted(ids[:12])
    for batch in batches:
        for wave, caption, key in zip(batch.wave, batch.captions, batch.ids, strict=True):
            assert caption.split()[1] == str(int(key))
            assert float(wave.mean()) == pytest.approx((int(key) + 1) / 16, abs=1e-4)  # 16-bit FLAC


@pytest.mark.parametrize("workers", [0, 2])
def test_it_goes_on_where_it_was(shards, workers: int):
    def loader(start: int) -> DataLoader:
        return DataLoader(stream(shards, place=Place(start)), batch_size=None, num_workers=workers)

    whole, rest = take(loader(0), 9), take(loader(5), 4)
    for a, b in zip(whole[5:], rest, strict=True):
        assert a.ids == b.ids and a.captions == b.captions and torch.equal(a.wave, b.wave)


def test_what_was_seen_is_not_decoded_again(shards, monkeypatch):
    whole = take(stream(shards), 22)  # six batches a pass
    opened, decoded, decode = [], [], Shards.item
    monkeypatch.setattr(
        "audioldm.datasets.shards.samples", lambda tar, **more: opened.append(tar) or samples(tar, **more)
    )
    monkeypatch.setattr(
        Shards, "item", lambda self, sample, draws: decoded.append(sample) or decode(self, sample, draws)
    )
    rest = take(stream(shards, place=Place(20)), 2)
    assert [batch.ids for batch in rest] == [batch.ids for batch in whole[20:]]
    assert all(torch.equal(a.wave, b.wave) for a, b in zip(whole[20:], rest, strict=True))
    assert len(opened) <= 2 * len(shards)  # once to count them, and the fourth pass alone
    assert [sample["__key__"] for sample in decoded] == [key for batch in rest for key in batch.ids]


def test_processes_share_the_shards(shards):
    seen = [
        {key for batch in take(stream(shards, place=Place(0, r, 2)), 3) for key in batch.ids}
        for r in range(2)
    ]
    assert seen[0] | seen[1] == {f"{i:09d}" for i in range(12)} and not seen[0] & seen[1]
    with pytest.raises(AudioLDMError, match="too few for 5 readers"):
        take(stream(shards, place=Place(0, 4, 5)), 1)


def test_a_damaged_shard_is_named(shards):
    """Cut off in a member or between two, or a header that is none: tarfile alone would take some for the end."""
    path = Path(shards[1])
    whole = path.read_bytes()
    with tarfile.open(path) as tar:
        place = [item.offset for item in tar if item.name.endswith(".txt")][1]
    zeros = bytearray(whole)
    zeros[place] ^= 255
    for damaged in (whole[:700], whole[:place], bytes(zeros)):
        path.write_bytes(damaged)
        with pytest.raises(AudioLDMError, match=r"shard-00001\.tar cannot be read"):
            take(stream(shards), 6)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_what_is_no_shard_is_named_and_not_waited_for(tmp_path):
    tar_of(tmp_path / "empty.tar", [])
    os.mkfifo(tmp_path / "pipe.tar")
    (tmp_path / "folder.tar").mkdir()
    (tmp_path / "endless.tar").symlink_to("/dev/zero")
    (tmp_path / "zeros.tar").touch()
    os.truncate(tmp_path / "zeros.tar", 2**40)  # as a download leaves it that takes its place first
    cases = {"empty": "holds no clip", "missing": "cannot be read"}
    cases["zeros"] = r"cannot be read \(it begins with zeros\)"
    cases |= dict.fromkeys(("pipe", "folder", "endless"), r"cannot be read \(it is no file\)")
    for name, why in cases.items():
        with pytest.raises(AudioLDMError, match=rf"{name}\.tar {why}"):
            take(stream([str(tmp_path / f"{name}.tar")]), 1)


@pytest.mark.parametrize(
    "about", [{"start": 10**400}, {"start": 0, "seconds": 10**400}, {"seconds": "x"}, [1]]
)
def test_what_is_no_part_of_a_clip_is_named(tmp_path, about):
    parts = {"wav": save(tmp_path / "a.wav").read_bytes(), "txt": b"x", "json": json.dumps(about).encode()}
    path = tar_of(tmp_path / "s.tar", [(f"a.{kind}", content) for kind, content in parts.items()])
    with pytest.raises(AudioLDMError, match=r"s\.tar: a\.wav"):
        take(stream([path]), 1)


def test_every_layout_of_a_tar_reads_as_webdataset_reads_it(shards, tmp_path):
    """Long names in GNU's and POSIX's way, folders, hidden files, a compressed tar, an address."""
    import webdataset

    sound = next(iter(samples(shards[0])))["flac"]
    names = ["a/b.c/7.flac", "a/b.c/7.txt", "readme", f"{'long' * 40}/8.FLAC", f"{'long' * 40}/8.left.txt"]
    names += [f"{'long' * 40}/8.txt", "é.flac", "é.txt"]
    members = [(name, sound if name.lower().endswith(".flac") else name.encode()) for name in names]
    formats = {"gnu.tar": tarfile.GNU_FORMAT, "pax.tar": tarfile.PAX_FORMAT, "gnu.tgz": tarfile.GNU_FORMAT}
    for kind, format in formats.items():
        path = tar_of(tmp_path / kind, members, "w:gz" if kind == "gnu.tgz" else "w", format=format)
        theirs = list(webdataset.WebDataset([path], shardshuffle=False))
        for address in [path, f"pipe:cat {path}"] if kind != "gnu.tgz" else [path]:
            ours = list(samples(address))
            assert len(ours) == 3
            for own, other in zip(ours, theirs, strict=True):
                other = {k: v for k, v in other.items() if k == "__key__" or not k.startswith("__")}
                assert {k: v for k, v in own.items() if k == "__key__" or not k.startswith("__")} == other


def test_only_sounds_as_they_were_checked_go_into_a_shard(tmp_path):
    (tmp_path / "secret.wav").write_text("a key")
    with pytest.raises(AudioLDMError, match=r"secret\.wav"):
        write_shards([Row(str(tmp_path / "secret.wav"), ("x",))], tmp_path / "shards")
    assert not list((tmp_path / "shards").iterdir())
    path = save(tmp_path / "a.wav", sine(0.5))
    row = check([Row(str(path), ("x",))]).rows[0]
    save(path, sine(0.5, 900.0))
    with pytest.raises(AudioLDMError, match=r"a\.wav has changed since it was checked"):
        write_shards([row], tmp_path / "shards")


def test_linked_files_bring_their_sound(tmp_path):
    save(tmp_path / "a.flac", subtype="PCM_16")
    (tmp_path / "soft.flac").symlink_to("a.flac")
    (tmp_path / "hard.flac").hardlink_to(tmp_path / "a.flac")
    rows = [Row(str(tmp_path / f"{name}.flac"), (name,)) for name in ("a", "soft", "hard")]
    path = str(write_shards(rows, tmp_path / "shards")[0])
    assert len({sample["flac"] for sample in samples(path)}) == 1
