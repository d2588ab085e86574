"""Windows, captions and batches; the same (seed, epoch, index) is the same draw."""

import numpy as np
import pytest
import torch
from sounds import RATE, save, sine
from torch.utils.data import DataLoader, WeightedRandomSampler

from audioldm.datasets.audio_text import AudioText, collate, weights, window
from audioldm.datasets.draws import generator
from audioldm.datasets.manifest import Row
from audioldm.errors import AudioLDMError
from audioldm.signal.level import normalise_peak
from audioldm.spec import SPECS

SPEC = SPECS["16k_64"]


@pytest.fixture
def rows(tmp_path):
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 3 * RATE).astype(np.float32)
    captions = ("one", "two", "three", "four")
    return [
        Row(str(save(tmp_path / "long.wav", noise)), captions),
        Row(str(save(tmp_path / "short.wav", sine(0.25))), ("short",)),
        Row(str(save(tmp_path / "other.wav", sine(1.0, rate=44100), 44100)), ("other",)),
    ]


def same(first, second):
    return torch.equal(first[0], second[0]) and first[1:] == second[1:]


def test_items_have_one_shape_and_short_clips_end_in_zeros(rows):
    data = AudioText(rows, SPEC, 0.5, seed=0)
    assert len(data) == 3
    for index in range(3):
        wave, caption, path = data[index]
        assert wave.shape == (1, 8000)
        assert wave.dtype == torch.float32
        assert caption in rows[index].captions
        assert path == rows[index].path
    short = data[1][0][0]
    # the cache holds 16-bit samples: half a step of 1/32767
    assert torch.allclose(short[:4000], torch.from_numpy(sine(0.25)), rtol=0, atol=2e-5)
    assert not short[4000:].any()


def test_draws_follow_from_seed_epoch_and_index_alone(rows):
    data, again = AudioText(rows, SPEC, 0.5, seed=7), AudioText(rows, SPEC, 0.5, seed=7, cache=False)
    first = [data[index] for index in (0, 1, 2)]
    assert all(same(item, again[index]) for item, index in zip(first, (0, 1, 2), strict=True))
    assert same(data[0], first[0]), "the order and number of calls do not matter"
    data.set_epoch(1)
    assert not same(data[0], first[0])
    data.set_epoch(0)
    assert same(data[0], first[0])
    assert not same(AudioText(rows, SPEC, 0.5, seed=8)[0], first[0])


def test_epochs_reach_workers_that_persist(rows):
    data = AudioText(rows, SPEC, 0.5, seed=0)
    loader = DataLoader(data, batch_size=3, num_workers=1, persistent_workers=True, collate_fn=collate)
    batches = []
    for epoch in (0, 1):
        data.set_epoch(epoch)
        batches.append(next(iter(loader)).wave)
        assert torch.equal(batches[-1], collate([data[index] for index in range(3)]).wave)
    assert not torch.equal(*batches)


def test_captions_random_or_first(rows):
    data = AudioText(rows[:1], SPEC, 0.5, seed=0)
    seen = set()
    for epoch in range(40):
        data.set_epoch(epoch)
        seen.add(data[0][1])
    assert seen == {
        "one",
        "two",
        "three",
        "four",
    }  # missing one of four in 40 draws: 4 * 0.75^40 = 4e-5, seed fixed
    first = AudioText(rows[:1], SPEC, 0.5, seed=0, captions="first")
    assert first[0][1] == "one"


def test_crops_prefer_sound():
    wave = torch.zeros(10 * RATE)
    wave[-4 * RATE :] = 0.5
    loud = [bool(window(wave, RATE, generator(0, 0, index)).any()) for index in range(200)]
    # one draw misses the sound in 5 of 9 (111 of 200), four draws in (5/9)^4 = 9.5 % (19 of 200); deviation 4.1
    assert loud.count(False) <= 35


def test_an_exact_length_is_taken_whole():
    wave = torch.rand(100)
    assert torch.equal(window(wave, 100, generator(0, 0, 0)), wave)


def test_zeros_after_a_short_clip_stay_zeros_when_its_level_is_set():
    wave = 0.2 + 0.1 * torch.rand(3000, generator=torch.Generator().manual_seed(0))
    levelled = normalise_peak(window(wave, 8000, generator(0, 0, 0)))
    # 1e-6 is a rounding of float32 sums over 3,000 samples; a constant would be 0.1
    assert levelled[3000:].abs().max() < 1e-6 and levelled.abs().max() == pytest.approx(0.5)


def test_a_row_may_be_a_part_of_a_file(tmp_path):
    path = save(tmp_path / "a.wav", np.concatenate([np.full(RATE, 0.25), np.full(RATE, 0.75)]))
    data = AudioText([Row(str(path), ("x",), start=1.0, seconds=0.5)], SPEC, 0.5, seed=0)
    assert torch.allclose(data[0][0], torch.full((1, 8000), 0.75), atol=2e-5)


def test_collate_makes_a_batch(rows):
    data = AudioText(rows, SPEC, 0.5, seed=0)
    batch = collate([data[0], data[1]])
    assert batch.wave.shape == (2, 1, 8000)
    assert batch.captions[1] == "short"
    assert batch.ids == [rows[0].path, rows[1].path]


def test_wrong_use_is_refused(rows):
    with pytest.raises(AudioLDMError, match="no rows"):
        AudioText([], SPEC, 1.0, seed=0)
    with pytest.raises(AudioLDMError, match="'all'"):
        AudioText(rows, SPEC, 1.0, seed=0, captions="all")
    with pytest.raises(AudioLDMError, match="seconds=0"):
        AudioText(rows, SPEC, 0, seed=0)


def test_weights_draw_sources_by_their_shares():
    rows = [Row("x", ("x",), source=source) for source in ["a"] * 90 + ["b/c"] * 9 + ["b/d"] + ["z"] * 5]
    weight = weights(rows, {"a": 1, "b": 3})
    assert weight[:90].sum() == pytest.approx(0.25)
    assert weight[90:100].sum() == pytest.approx(0.75)
    assert not weight[100:].any()
    sampler = WeightedRandomSampler(weight, 4000, generator=torch.Generator().manual_seed(0))
    drawn = sum(index < 90 for index in sampler) / 4000
    assert drawn == pytest.approx(0.25, abs=0.03), "four standard deviations of 4000 draws"


def test_the_longest_name_counts_and_names_are_whole_words():
    rows = [Row("x", ("x",), source=source) for source in ("b/c", "b/d", "bc")]
    assert weights(rows, {"b": 1, "b/c": 1}).tolist() == [0.5, 0.5, 0.0]


@pytest.mark.parametrize("shares", [{}, {"a": 0.0}, {"a": -1.0, "b": 2.0}, {"nothing": 1.0}])
def test_weights_refuse_what_draws_nothing(shares):
    with pytest.raises(AudioLDMError):
        weights([Row("x", ("x",), source="a"), Row("x", ("x",), source="b")], shares)
