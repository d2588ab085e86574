"""The stream of batches: every row once a pass, the same rows whatever the number of processes, from any batch on."""

import itertools
import time

import pytest
import torch

from audioldm.datasets.decode import encode
from audioldm.datasets.draws import Place
from audioldm.datasets.manifest import Row, write
from audioldm.errors import AudioLDMError
from audioldm.spec import AudioSpec
from audioldm.training.data import Draws, Loader, from_manifests, gain


def take(draws: Draws, count: int) -> list[list[tuple[int, int]]]:
    return list(itertools.islice(iter(draws), count))


def test_every_row_once_a_pass_in_a_new_order():
    rows = [row for batch in take(Draws(10, 4, seed=0), 5) for row, _ in batch]
    first, second = rows[:10], rows[10:]
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second


@pytest.mark.parametrize("weights", [None, torch.rand(11, dtype=torch.float64)])
def test_processes_share_what_one_would_see(weights):
    alone = take(Draws(11, 6, seed=3, weights=weights), 7)
    parts = [take(Draws(11, 2, seed=3, weights=weights, place=Place(0, r, 3)), 7) for r in range(3)]
    joined = [[*a, *b, *c] for a, b, c in zip(*parts, strict=True)]
    assert joined == alone
    assert [draw for batch in alone for _, draw in batch] == list(range(42))


def test_it_can_begin_anywhere_and_no_rows_are_refused():
    whole = take(Draws(7, 3, seed=1), 9)
    assert take(Draws(7, 3, seed=1, place=Place(5)), 4) == whole[5:]
    assert take(Draws(7, 3, seed=2), 9) != whole
    with pytest.raises(AudioLDMError, match="no rows"):
        Draws(0, 1, seed=0)


def test_crops_keep_the_levels_of_their_clips(tmp_path):
    """A clip that is loud, then 40 dB softer: crops differ as its parts do, each with its gain; some are silent."""
    time = torch.arange(32000) / 16000
    wave = torch.sin(2 * torch.pi * 500 * time) * torch.where(time < 1, 0.8, 0.008)
    rows = [Row(str(encode(tmp_path / "a.wav", wave, 16000)), ("tone",), seconds=2.0)]
    path = str(write(rows, tmp_path / "m.jsonl"))
    settings = {"manifests": [path], "seconds": 0.25, "batch_size": 1}
    levels = {"quietest": -40.0, "quiet": 0.5, "silent": 0.1}
    data = from_manifests(AudioSpec(), levels=levels, **settings).train
    plain = from_manifests(AudioSpec(), **settings).train
    gains = []
    for draw in range(60):
        (crop, _, _), (raw, _, _) = data[0, draw], plain[0, draw]
        assert torch.equal(crop, data[0, draw][0])  # the same draw, the same gain
        gains.append(float(crop.norm() / raw.norm()) / (0.5 / 0.8))
    assert 0.02 < gains.count(0.0) / 60 < 0.25
    loud = [factor for factor in gains if factor > 0]
    assert 0.009 < min(loud) < 0.1 and 1.2 < max(loud) < 10 ** (5 / 20) * 1.01
    many = torch.tensor([gain(torch.Generator().manual_seed(i)) for i in range(2000)])
    assert float((many == 0).float().mean()) == pytest.approx(0.02, abs=0.01)
    assert float((many < 10 ** (-8 / 20)).float().mean()) == pytest.approx(0.4 + 0.02, abs=0.04)


def test_time_is_counted_while_a_batch_is_waited_for_and_not_while_it_is_worked_on():
    class Slow(torch.utils.data.Dataset):
        def __len__(self):
            return 4

        def __getitem__(self, index):
            time.sleep(0.05)
            return index

    loader, begun = Loader(Slow(), batch_size=1), time.perf_counter()
    for _ in loader:
        time.sleep(0.1)
    assert loader.waited >= 0.2 and time.perf_counter() - begun - loader.waited >= 0.4
