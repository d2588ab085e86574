"""Shards are read as written, in an order that follows from the seed, from any batch on, and shared among readers."""

import itertools
from pathlib import Path

import pytest
import soundfile as sf
import torch
from torch.utils.data import DataLoader

from audioldm.datasets.manifest import Row
from audioldm.datasets.shards import Shards, write_shards
from audioldm.errors import AudioLDMError
from audioldm.spec import AudioSpec


@pytest.fixture
def shards(tmp_path):
    """Twelve clips of a level of their own, three a shard."""
    rows = []
    for i in range(12):
        path = tmp_path / f"{i}.flac"
        sf.write(path, torch.full((16000,), (i + 1) / 16).numpy(), 16000)
        rows.append(Row(str(path), (f"clip {i}", f"sound {i}")))
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
        return DataLoader(stream(shards, start=start), batch_size=None, num_workers=workers)

    whole, rest = take(loader(0), 9), take(loader(5), 4)
    for a, b in zip(whole[5:], rest, strict=True):
        assert a.ids == b.ids and a.captions == b.captions and torch.equal(a.wave, b.wave)


def test_processes_share_the_shards(shards):
    seen = [
        {key for batch in take(stream(shards, rank=r, world=2), 3) for key in batch.ids} for r in range(2)
    ]
    assert seen[0] | seen[1] == {f"{i:09d}" for i in range(12)} and not seen[0] & seen[1]
    with pytest.raises(AudioLDMError, match="too few for 5 readers"):
        take(stream(shards, rank=4, world=5), 1)


def test_a_damaged_shard_is_named(shards, tmp_path):
    Path(shards[1]).write_bytes(Path(shards[1]).read_bytes()[:700])
    with pytest.raises(AudioLDMError, match=r"shard-00001\.tar"):
        take(stream(shards), 6)
    with pytest.raises(AudioLDMError, match="missing"):
        take(stream([str(tmp_path / "missing.tar")]), 1)
