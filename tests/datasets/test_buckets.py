"""Clips of 2 to 30 s in batches of one length: each seen once a pass, by one process or two, with little padding."""

from collections import Counter

import pytest
import torch
from sounds import save, sine

from audioldm.datasets.audio_text import AudioText, collate
from audioldm.datasets.buckets import SECONDS, BucketDraws, batch_sizes, bucket_of
from audioldm.datasets.draws import Place
from audioldm.datasets.manifest import Row
from audioldm.errors import AudioLDMError
from audioldm.spec import SPECS

SPEC = SPECS["16k_64"]
LENGTHS = [2.0 + 28.0 * (i / 199) ** 2 for i in range(200)]


def draws(**settings):
    ids = [bucket_of(seconds, SECONDS) for seconds in LENGTHS]
    return BucketDraws(ids, batch_sizes(SECONDS, 61.44), seed=0, **settings), ids


def first(sampler, count):
    return [batch for _, batch in zip(range(count), sampler, strict=False)]


def test_every_row_comes_once_a_pass_in_batches_of_one_bucket():
    sampler, ids = draws()
    one, two = first(sampler, sampler.steps), first(draws(place=Place(sampler.steps))[0], sampler.steps)
    assert Counter(row for batch in one for row, _ in batch) == Counter(range(200))
    assert Counter(row for batch in two for row, _ in batch) == Counter(range(200))
    assert [row for batch in one for row, _ in batch] != [row for batch in two for row, _ in batch]
    for batch in one:
        assert len({ids[row] for row, _ in batch}) == 1
        assert len(batch) * SECONDS[ids[batch[0][0]]] <= 61.44 + 1e-9
    with pytest.raises(TypeError, match="no end"):
        len(sampler)
    assert {draw for batch in two for _, draw in batch} == {1}


def test_a_batch_depends_on_its_number_only():
    sampler, _ = draws()
    whole = first(sampler, sampler.steps + 5)
    assert first(draws(place=Place(7))[0], sampler.steps - 2) == whole[7:]


def test_two_processes_share_the_pass():
    halves = [draws(place=Place(0, rank, 2))[0] for rank in range(2)]
    assert halves[0].steps == halves[1].steps
    own = [first(half, half.steps) for half in halves]
    ids = draws()[1]
    seen = Counter()
    for left, right in zip(*own, strict=True):
        assert len(left) == len(right), "no process waits for another"
        assert {ids[row] for row, _ in left} == {ids[row] for row, _ in right}
        seen.update(row for row, _ in left + right)
    assert set(seen) == set(range(200))
    assert sum(seen.values()) - 200 <= len(SECONDS), "at most one row a bucket is dealt twice"


def test_little_is_padding():
    def waste(buckets):
        sizes = [buckets[bucket_of(value, buckets)] for value in LENGTHS]
        return 1 - sum(min(value, size) for value, size in zip(LENGTHS, sizes, strict=True)) / sum(sizes)

    assert waste((30.72,)) > 0.6
    assert waste(SECONDS) < 0.3
    assert waste(SECONDS) < 0.45 * waste((30.72,))


def test_clips_get_the_window_of_their_bucket(tmp_path):
    lengths = (0.3, 0.5, 0.9, 2.5)
    rows = [Row(str(save(tmp_path / f"{i}.wav", sine(s))), ("x",), seconds=s) for i, s in enumerate(lengths)]
    data = AudioText(rows, SPEC, (0.5, 1.0, 2.0), seed=0)
    assert data.ids == [0, 0, 1, 2]
    assert [data[i][0].shape[1] for i in range(4)] == [8000, 8000, 16000, 32000]
    sampler = BucketDraws(data.ids, batch_sizes((0.5, 1.0, 2.0), 2.0), seed=0, passes=1)
    loader = torch.utils.data.DataLoader(data, batch_sampler=sampler, collate_fn=collate)
    shapes = sorted(tuple(batch.wave.shape) for batch in loader)
    assert shapes == [(1, 1, 16000), (1, 1, 32000), (2, 1, 8000)] and len(sampler) == 3


def test_what_is_no_bucket_is_refused():
    for buckets in ((), (2.0, 1.0), (0.0, 1.0), (1.0, 1.0)):
        with pytest.raises(AudioLDMError, match="buckets="):
            bucket_of(1.0, buckets)
    with pytest.raises(AudioLDMError, match="seconds_a_batch=5"):
        batch_sizes((2.56, 10.24), 5.0)
    with pytest.raises(AudioLDMError, match="no rows"):
        BucketDraws([], {}, seed=0)


def test_every_bucket_fits_a_u_net_with_three_halvings():
    for seconds in SECONDS:
        assert SPEC.latent_frames(seconds) == SPEC.latent_frames(seconds, 8)
