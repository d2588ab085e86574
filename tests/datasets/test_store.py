"""Decoded once, shared by all: the samples are those of decoding, a cut run goes on, changes are noticed."""

import pickle
from pathlib import Path

import pytest
import torch
from sounds import save, sine

from audioldm.datasets import store
from audioldm.datasets.audio_text import AudioText, weights
from audioldm.datasets.check import check
from audioldm.datasets.manifest import Row
from audioldm.datasets.store import Store, key_of, load
from audioldm.errors import AudioLDMError
from audioldm.spec import SPECS


@pytest.fixture
def rows(tmp_path: Path, monkeypatch) -> list[Row]:
    monkeypatch.setenv("AUDIOLDM_STORE", str(tmp_path / "store"))
    paths = [save(tmp_path / f"{i}.wav", sine(1.0 + i / 10, 200.0 + i, 44100), 44100) for i in range(7)]
    return check([Row(str(path), (f"tone {i}",)) for i, path in enumerate(paths)]).rows


def test_a_store_holds_what_decoding_gives_and_is_made_once(rows: list[Row], tmp_path: Path, monkeypatch):
    monkeypatch.setattr(store, "SMALL_SECONDS", 0.0)
    monkeypatch.setattr(store, "PART", 3)
    steps: list[int] = []
    monkeypatch.setattr(store, "load", lambda row, rate: (steps.append(1), load(row, rate))[1])
    clips = Store(rows, 16000)
    assert len(steps) == 7 and clips.path == tmp_path / "store" / key_of(rows, 16000)
    again = Store(rows, 16000)
    assert len(steps) == 7 and all(torch.equal(again[i], load(row, 16000)) for i, row in enumerate(rows))
    twin = pickle.loads(pickle.dumps(again))
    assert torch.equal(twin[6], again[6]) and len(pickle.dumps(again)) < 1000
    clips.path.with_suffix(".npy").unlink()  # as if the run had been cut off there
    assert torch.equal(Store(rows, 16000)[5], clips[5]) and len(steps) == 14
    for name in (".i16", ".npy"):
        clips.path.with_suffix(name).write_bytes(b"torn")
        with pytest.raises(AudioLDMError, match="is damaged"):
            Store(rows, 16000)


def test_few_clips_need_no_store(rows: list[Row], tmp_path: Path):
    assert torch.equal(Store(rows, 16000)[3], load(rows[3], 16000)) and not (tmp_path / "store").exists()


def test_items_are_the_same_with_and_without(rows: list[Row], monkeypatch):
    sets = [AudioText(rows, SPECS["16k_64"], 0.5, seed=0, cache=cache) for cache in (True, False)]
    monkeypatch.setattr(store, "SMALL_SECONDS", 0.0)
    sets.append(AudioText(rows, SPECS["16k_64"], 0.5, seed=0))
    for i in range(len(rows)):
        assert all(torch.equal(other[i][0], sets[0][i][0]) for other in sets[1:])


def test_a_sound_that_changed_after_the_check_is_noticed(rows: list[Row]):
    save(Path(rows[4].path), sine(1.0))
    with pytest.raises(AudioLDMError, match=r"4\.wav has changed since it was checked"):
        Store(rows, 16000)


def test_the_weight_of_a_row_counts_within_its_source():
    rows = [
        Row("1", ("x",), source="a"),
        Row("2", ("x",), source="a", weight=0.25),
        Row("3", ("x",), source="b"),
    ]
    assert weights(rows, {"a": 1, "b": 1}).tolist() == pytest.approx([0.4, 0.1, 0.5])
