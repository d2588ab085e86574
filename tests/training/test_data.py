"""The stream of batches: every row once a pass, the same rows whatever the number of processes, from any batch on."""

import itertools

import pytest
import torch

from audioldm.datasets.draws import Place
from audioldm.errors import AudioLDMError
from audioldm.training.data import Draws


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


def test_it_can_begin_anywhere():
    whole = take(Draws(7, 3, seed=1), 9)
    assert take(Draws(7, 3, seed=1, place=Place(5)), 4) == whole[5:]
    assert take(Draws(7, 3, seed=2), 9) != whole


def test_no_rows_are_refused():
    with pytest.raises(AudioLDMError, match="no rows"):
        Draws(0, 1, seed=0)
