"""Windows, captions, buckets and mixtures; the same (seed, draw, index) is the same, from memory or a store."""

import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from sounds import RATE, save, sine
from torch.utils.data import DataLoader, WeightedRandomSampler

from audioldm.datasets import store
from audioldm.datasets.audio_text import AudioText, collate, level_db, mixed, share, weights, window
from audioldm.datasets.check import check
from audioldm.datasets.draws import BucketDraws, Place, batch_sizes, bucket_of, generator
from audioldm.datasets.manifest import Row
from audioldm.datasets.store import Store, key_of, load
from audioldm.errors import AudioLDMError
from audioldm.signal.level import normalise_peak
from audioldm.spec import SPECS

SPEC = SPECS["16k_64"]
SECONDS = (2.56, 5.12, 10.24, 20.48, 30.72)  # whole latent frames of a U-Net with three halvings (0.32 s)
LENGTHS = [2.0 + 28.0 * (i / 199) ** 2 for i in range(200)]
IDS = [bucket_of(seconds, SECONDS) for seconds in LENGTHS]


@pytest.fixture
def rows(tmp_path: Path) -> list[Row]:
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 3 * RATE).astype(np.float32)
    return [
        Row(str(save(tmp_path / "long.wav", noise)), ("one", "two", "three", "four")),
        Row(str(save(tmp_path / "short.wav", sine(0.25))), ("short",)),
        Row(str(save(tmp_path / "other.wav", sine(1.0, rate=44100), 44100)), ("other",)),
    ]


def same(first, second) -> bool:
    return torch.equal(first[0], second[0]) and first[1:] == second[1:]


def test_items_have_one_shape_and_short_clips_end_in_zeros(rows):
    data = AudioText(rows, SPEC, 0.5, seed=0)
    assert len(data) == 3
    for index in range(3):
        wave, caption, path = data[index]
        assert wave.shape == (1, 8000) and wave.dtype == torch.float32
        assert caption in rows[index].captions and path == rows[index].path
    short = data[1][0][0]
    # the cache holds 16-bit samples: half a step of 1/32767
    assert (
        torch.allclose(short[:4000], torch.from_numpy(sine(0.25)), rtol=0, atol=2e-5)
        and not short[4000:].any()
    )
    batch = collate([data[0], data[1]])
    assert batch.wave.shape == (2, 1, 8000) and batch.captions[1] == "short"
    assert batch.ids == [rows[0].path, rows[1].path]


def test_draws_follow_from_seed_epoch_and_index_alone(rows, monkeypatch):
    data, again = AudioText(rows, SPEC, 0.5, seed=7), AudioText(rows, SPEC, 0.5, seed=7, cache=False)
    first = [data[index] for index in range(3)]
    assert all(same(item, again[index]) for index, item in enumerate(first))
    assert same(data[0], first[0]), "the order and number of calls do not matter"
    assert not same(data[(0, 1)], first[0]) and same(data[(0, 0)], first[0])
    assert not same(AudioText(rows, SPEC, 0.5, seed=8)[0], first[0])


def test_captions_random_or_first(rows):
    data = AudioText(rows[:1], SPEC, 0.5, seed=0)
    # missing one of four in 40 draws: 4 * 0.75^40 = 4e-5, seed fixed
    assert {data[(0, epoch)][1] for epoch in range(40)} == {"one", "two", "three", "four"}
    assert AudioText(rows[:1], SPEC, 0.5, seed=0, captions="first")[0][1] == "one"


def test_crops_prefer_sound():
    wave = torch.zeros(10 * RATE)
    wave[-4 * RATE :] = 0.5
    loud = [bool(window(wave, RATE, generator(0, 0, index))[0].any()) for index in range(200)]
    # one draw misses the sound in 5 of 9 (111 of 200), four draws in (5/9)^4 = 9.5 % (19 of 200); deviation 4.1
    assert loud.count(False) <= 35
    exact = torch.rand(100)
    assert torch.equal(window(exact, 100, generator(0, 0, 0))[0], exact)


def test_zeros_after_a_short_clip_stay_zeros_when_its_level_is_set():
    wave = 0.2 + 0.1 * torch.rand(3000, generator=torch.Generator().manual_seed(0))
    levelled = normalise_peak(window(wave, 8000, generator(0, 0, 0))[0])
    # 1e-6 is a rounding of float32 sums over 3,000 samples; a constant would be 0.1
    assert levelled[3000:].abs().max() < 1e-6 and levelled.abs().max() == pytest.approx(0.5)


def test_a_row_may_be_a_part_of_a_file(tmp_path: Path):
    path = save(tmp_path / "a.wav", np.concatenate([np.full(RATE, 0.25), np.full(RATE, 0.75)]))
    data = AudioText([Row(str(path), ("x",), start=1.0, seconds=0.5)], SPEC, 0.5, seed=0)
    assert torch.allclose(data[0][0], torch.full((1, 8000), 0.75), atol=2e-5)


def test_wrong_use_is_refused(rows):
    for settings, word in (({"rows": []}, "no rows"), ({"seconds": 0}, "no lengths")):
        with pytest.raises(AudioLDMError, match=word):
            AudioText(**{"rows": rows, "spec": SPEC, "seconds": 1.0, "seed": 0, **settings})


def test_weights_draw_sources_by_their_shares():
    rows = [Row("x", ("x",), source=source) for source in ["a"] * 90 + ["b/c"] * 9 + ["b/d"] + ["z"] * 5]
    weight = weights(rows, {"a": 1, "b": 3})
    assert weight[:90].sum() == pytest.approx(0.25) and weight[90:100].sum() == pytest.approx(0.75)
    assert not weight[100:].any()
    sampler = WeightedRandomSampler(weight, 4000, generator=torch.Generator().manual_seed(0))
    drawn = sum(index < 90 for index in sampler) / 4000
    assert drawn == pytest.approx(0.25, abs=0.03), "four standard deviations of 4000 draws"
    rows = [Row("x", ("x",), source=source) for source in ("b/c", "b/d", "bc")]
    assert weights(rows, {"b": 1, "b/c": 1}).tolist() == [0.5, 0.5, 0.0], (
        "the longest name counts, in whole words"
    )
    rows = [
        Row("1", ("x",), source="a"),
        Row("2", ("x",), source="a", weight=0.25),
        Row("3", ("x",), source="b"),
    ]
    assert weights(rows, {"a": 1, "b": 1}).tolist() == pytest.approx([0.4, 0.1, 0.5])
    for shares in ({}, {"a": 0.0}, {"a": -1.0, "b": 2.0}, {"nothing": 1.0}):
        with pytest.raises(AudioLDMError):
            weights(rows, shares)


@pytest.fixture
def tones(tmp_path: Path, monkeypatch) -> list[Row]:
    monkeypatch.setenv("AUDIOLDM_STORE", str(tmp_path / "store"))
    paths = [save(tmp_path / f"{i}.wav", sine(1.0 + i / 10, 200.0 + i, 44100), 44100) for i in range(7)]
    return check([Row(str(path), (f"tone {i}",)) for i, path in enumerate(paths)]).rows


def test_a_store_holds_what_decoding_gives_and_is_made_once(tones: list[Row], tmp_path: Path, monkeypatch):
    assert torch.equal(Store(tones, 16000)[3], load(tones[3], 16000)) and not (tmp_path / "store").exists()
    monkeypatch.setattr(store, "SMALL_SECONDS", 0.0)
    monkeypatch.setattr(store, "PART", 3)
    steps: list[int] = []
    monkeypatch.setattr(store, "load", lambda row, rate: (steps.append(1), load(row, rate))[1])
    clips = Store(tones, 16000)
    assert len(steps) == 7 and clips.path == tmp_path / "store" / key_of(tones, 16000)
    again = Store(tones, 16000)
    assert len(steps) == 7 and all(torch.equal(again[i], load(row, 16000)) for i, row in enumerate(tones))
    twin = pickle.loads(pickle.dumps(again))
    assert torch.equal(twin[6], again[6]) and len(pickle.dumps(again)) < 1000
    sets = [AudioText(tones, SPEC, 0.5, seed=0, cache=cache) for cache in (True, False)]
    assert all(torch.equal(sets[0][i][0], sets[1][i][0]) for i in range(7))
    clips.path.with_suffix(".npy").unlink()  # as if the run had been cut off there
    assert torch.equal(Store(tones, 16000)[5], clips[5]) and len(steps) == 14
    for name in (".i16", ".npy"):
        clips.path.with_suffix(name).write_bytes(b"torn")
        with pytest.raises(AudioLDMError, match="is damaged"):
            Store(tones, 16000)


def test_a_sound_that_changed_after_the_check_is_noticed(tones: list[Row]):
    save(Path(tones[4].path), sine(1.0))
    with pytest.raises(AudioLDMError, match=r"4\.wav has changed since it was checked"):
        Store(tones, 16000)


def draws(**settings) -> BucketDraws:
    return BucketDraws(IDS, batch_sizes(SECONDS, 61.44), seed=0, **settings)


def first(sampler: BucketDraws, count: int) -> list:
    return [batch for _, batch in zip(range(count), sampler, strict=False)]


def test_every_row_comes_once_a_pass_in_batches_of_one_bucket():
    sampler = draws()
    one, two = first(sampler, sampler.steps), first(draws(place=Place(sampler.steps)), sampler.steps)
    orders = [[row for batch in part for row, _ in batch] for part in (one, two)]
    assert Counter(orders[0]) == Counter(orders[1]) == Counter(range(200)) and orders[0] != orders[1]
    for batch in one:
        assert len({IDS[row] for row, _ in batch}) == 1
        assert len(batch) * SECONDS[IDS[batch[0][0]]] <= 61.44 + 1e-9
    assert {draw for batch in two for _, draw in batch} == {1}
    assert first(draws(place=Place(7)), sampler.steps - 2) == first(sampler, sampler.steps + 5)[7:]
    with pytest.raises(TypeError, match="no end"):
        len(sampler)


def test_two_processes_share_the_pass():
    halves = [draws(place=Place(0, rank, 2)) for rank in range(2)]
    assert halves[0].steps == halves[1].steps
    seen = Counter()
    for left, right in zip(*(first(half, half.steps) for half in halves), strict=True):
        assert len(left) == len(right), "no process waits for another"
        assert {IDS[row] for row, _ in left} == {IDS[row] for row, _ in right}
        seen.update(row for row, _ in left + right)
    assert set(seen) == set(range(200))
    assert sum(seen.values()) - 200 <= len(SECONDS), "at most one row a bucket is dealt twice"


def test_little_is_padding():
    def waste(buckets):
        sizes = [buckets[bucket_of(value, buckets)] for value in LENGTHS]
        return 1 - sum(min(value, size) for value, size in zip(LENGTHS, sizes, strict=True)) / sum(sizes)

    assert waste((30.72,)) > 0.6 and waste(SECONDS) < 0.3 and waste(SECONDS) < 0.45 * waste((30.72,))
    for seconds in SECONDS:  # fits a U-Net with three halvings
        assert SPEC.latent_frames(seconds) == SPEC.latent_frames(seconds, 8)


def test_clips_get_the_window_of_their_bucket(tmp_path: Path):
    lengths = (0.3, 0.5, 0.9, 2.5)
    rows = [Row(str(save(tmp_path / f"{i}.wav", sine(s))), ("x",), seconds=s) for i, s in enumerate(lengths)]
    data = AudioText(rows, SPEC, (0.5, 1.0, 2.0), seed=0)
    assert data.ids == [0, 0, 1, 2]
    sampler = BucketDraws(data.ids, batch_sizes((0.5, 1.0, 2.0), 2.0), seed=0, passes=1)
    shapes = sorted(
        tuple(batch.wave.shape) for batch in DataLoader(data, batch_sampler=sampler, collate_fn=collate)
    )
    assert shapes == [(1, 1, 16000), (1, 1, 32000), (2, 1, 8000)] and len(sampler) == 3


def test_what_is_no_bucket_is_refused():
    for buckets in ((), (2.0, 1.0), (0.0, 1.0), (1.0, 1.0)):
        with pytest.raises(AudioLDMError, match="buckets="):
            bucket_of(1.0, buckets)
    with pytest.raises(AudioLDMError, match="seconds_a_batch=5"):
        batch_sizes((2.56, 10.24), 5.0)


@pytest.mark.parametrize("ratio", [0.2, 0.8])
@pytest.mark.parametrize("gain", [0.01, 30.0])
def test_the_ratio_of_a_mixture_holds_whatever_the_levels(ratio: float, gain: float):
    low = torch.from_numpy(sine(1.0, 300.0)).double()
    spectrum = torch.fft.rfft(mixed(low, gain * torch.from_numpy(sine(1.0, 3000.0)).double(), ratio)).abs()
    # amplitudes of the two sines: p a1 : (1 - p) a2 = r : 1 - r by Tokozume's eq. 2
    assert float(spectrum[300] / (spectrum[300] + spectrum[3000])) == pytest.approx(ratio, abs=1e-6)


def test_laws_of_mixtures():
    one, two = torch.randn(2, 160000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    # independent, of one level: sqrt(p^2 + (1-p)^2) makes the sum's power that of one; 160,000 samples give 0.05 dB
    assert level_db(mixed(one, two, 0.3)) == pytest.approx(level_db(one), abs=0.05)
    assert torch.isfinite(mixed(torch.zeros(10), torch.ones(10), 0.5)).all()
    values = torch.tensor([share(generator(0, 0, i)) for i in range(4000)], dtype=torch.float64)
    # Beta(5, 5): mean 1/2, variance 1/44; the mean of 4000 deviates by 0.0024, the variance by 2.5 %
    assert float(values.mean()) == pytest.approx(0.5, abs=0.01)
    assert float(values.var()) == pytest.approx(1 / 44, rel=0.1)


def test_both_captions_of_a_mixture_are_of_what_is_in_it(tmp_path: Path):
    bins = {"a low hum": 300, "a whistle": 3000, "a beep": 1200}
    rows = [
        Row(str(save(tmp_path / f"{hertz}.wav", sine(1.0, hertz))), (f"{caption}.",), seconds=1.0)
        for caption, hertz in bins.items()
    ]
    data, count = AudioText(rows, SPEC, 1.0, seed=0, mixup=0.5), 0
    for place in ((index, epoch) for epoch in range(40) for index in range(3)):
        wave, caption, _ = data[place]
        spectrum = torch.fft.rfft(wave[0]).abs()
        present = {name for name, hertz in bins.items() if spectrum[hertz] > 0.05 * spectrum.max()}
        assert present == {name for name in bins if name in caption}
        count += len(present) - 1
    # 120 items, half mixed, two thirds of those with another row: 40 expected, deviation 5.2
    assert 20 < count < 60
    plain, mixing = AudioText(rows, SPEC, 0.5, seed=3), AudioText(rows, SPEC, 0.5, seed=3, mixup=1.0)
    alone = next((i, e) for e in range(30) for i in range(3) if mixing.partner(i, e) is None)
    assert torch.equal(mixing[alone][0], plain[alone][0]), "a row drawn with itself stays as it is"
