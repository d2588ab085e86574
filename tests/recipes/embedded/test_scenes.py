"""Scenes of tones: what the caption says of order, number and loudness is measured in the sound."""

import random

import numpy as np
import pytest
import torch
from sounds import save, sine

from audioldm.datasets.check import check
from audioldm.datasets.decode import decode
from audioldm.datasets.manifest import Row
from audioldm.errors import AudioLDMError
from recipes.embedded.phrasing import clause, several, usable
from recipes.embedded.rendering import write
from recipes.embedded.scenes import (
    Layer,
    Pool,
    is_bed,
    is_event,
    is_single,
    levels,
    loop,
    mix,
    sounding,
    sounds,
)

RATE = 16000
EVENTS = {"a bell ringing": 500, "a whistle blowing": 900, "a knock on wood": 1500, "a beep": 2500}
BEDS = {"a machine humming": 200, "an engine running": 300}


def burst(hertz, seconds=0.3):
    wave = sine(seconds, hertz) * np.exp(-np.arange(round(seconds * RATE)) / (0.08 * RATE))
    return np.concatenate([np.zeros(800), wave, np.zeros(1600)]).astype(np.float32)


@pytest.fixture
def rows(tmp_path):
    made = []
    for split in ("train", "test"):
        shift = 1.0 if split == "train" else 1.03
        for caption, hertz in (EVENTS | BEDS).items():
            wave = sine(3.0, hertz * shift) if caption in BEDS else burst(hertz * shift)
            path = save(tmp_path / split / f"{caption}.wav", wave)
            licence = "CC0-1.0" if caption in BEDS else "CC-BY-4.0"
            made.append(
                Row(
                    str(path),
                    (caption,),
                    split=split,
                    licence=licence,
                    author=caption,
                    group=f"{split} {caption}",
                )
            )
    return check(made).rows


def band(wave, hertz):
    """Level (frames,) of (N,) within 5 % of a frequency, in windows of 50 ms."""
    spectra = torch.stft(wave, 800, 400, window=torch.hann_window(800), return_complex=True).abs()
    bins = torch.fft.rfftfreq(800, 1 / RATE)
    return spectra[(bins > hertz * 0.93) & (bins < hertz * 1.08)].amax(0)


def heard(wave, caption, shift):
    level = band(wave, (EVENTS | BEDS)[caption] * shift)
    return level > 0.2 * level.max()


def onsets(mask):
    return [i for i in range(len(mask)) if mask[i] and (i == 0 or not mask[i - 1])]


def test_clips_are_told_apart(rows):
    by_name = {row.captions[0]: row for row in rows if row.split == "train"}
    assert all(is_bed(by_name[name]) and not is_single(by_name[name]) for name in BEDS)
    assert all(is_single(by_name[name]) and is_event(by_name[name], 1.0) for name in EVENTS)
    assert not any(is_bed(by_name[name]) for name in EVENTS)


def test_scenes_are_what_their_captions_say(rows, tmp_path):
    made = sounds([rows], 64, 0)
    written, findings = write(made, tmp_path / "out")
    assert len(made) == 64 and not findings
    seen = set()
    for row in written:
        wave, caption = decode(row.path, RATE), row.captions[0]
        shift = 1.0 if row.split == "train" else 1.03
        assert 2.0 <= len(wave) / RATE <= 5.01
        named = [name for name in EVENTS | BEDS if name in caption]
        if ", then " in caption:
            first, last = caption.split(", then ")
            second = next(name for name in EVENTS | BEDS if name in last)
            begin = onsets(heard(wave, second, shift))[0]
            for name in EVENTS:
                if name in first:
                    assert onsets(heard(wave, name, shift))[-1] < begin, caption
            seen.add("then")
        elif "in the background" in row.captions[-1]:
            event = next(name for name in EVENTS if row.captions[-1].startswith(name))
            bed = next(name for name in BEDS if name in row.captions[-1])
            assert 0.5 * band(wave, EVENTS[event] * shift).max() > band(wave, BEDS[bed] * shift).median()
            assert float(heard(wave, bed, shift).float().mean()) > 0.95
            seen.add("over")
        elif any(caption.endswith(times) for times in ("twice", "three times", "four times")) and named:
            count = {"twice": 2, "three times": 3, "four times": 4}
            expected = next(n for word, n in count.items() if caption.endswith(word))
            assert len(onsets(heard(wave, named[0], shift))) == expected, caption
            seen.add("times")
        elif " and " in caption:
            assert all(float(heard(wave, name, shift).float().mean()) > 0.95 for name in BEDS)
            seen.add("together")
    assert seen == {"then", "over", "times", "together"}


def test_scenes_keep_splits_licences_authors_and_parts(rows):
    own = {row.sha256: row for row in rows}
    for made in sounds([rows], 40, 1):
        parts = [own[digest] for digest in made.parts]
        assert {row.split for row in parts} == {made.split}
        assert made.licence == " AND ".join(sorted({row.licence for row in parts}))
        assert all(row.author in made.author for row in parts)


def test_the_same_seed_gives_the_same_scenes(rows):
    first, again, other = (sounds([rows], 12, seed) for seed in (0, 0, 1))
    assert [made.key for made in first] == [made.key for made in again] != [made.key for made in other]
    assert torch.equal(first[3].make(), again[3].make())


def test_loops_have_no_gap_and_no_jump():
    wave = 0.1 * torch.from_numpy(sine(1.0, 100.0))
    out = loop(wave, 5 * RATE)
    assert len(out) == 5 * RATE
    assert float(levels(out).min()) > 0.5 * float(levels(out).median())
    assert float(out.diff().abs().max()) < 2 * float(wave.diff().abs().max())


def test_gains_are_decibels(rows):
    row = next(row for row in rows if row.captions[0] in BEDS)
    loud, quiet = (mix([Layer(row, 0.0, 2.0, 0.0), Layer(row, 2.5, 2.0, gain)], 5.0) for gain in (0.0, -12.0))
    for wave, gain in ((loud, 0.0), (quiet, -12.0)):
        ratio = wave[3 * RATE : 4 * RATE].square().mean() / wave[RATE // 2 : RATE].square().mean()
        assert 10 * float(ratio.log10()) == pytest.approx(gain, abs=0.2)  # windows hold no whole periods


def test_what_has_no_usable_caption_is_refused(tmp_path):
    path = save(tmp_path / "a.wav")
    with pytest.raises(AudioLDMError, match="No training row"):
        sounds([[Row(str(path), ("a thud, then a crash",))]], 3, 0)
    pool = Pool([[Row(str(path), ("a hum",))]], "train")
    assert pool.draw(random.Random(0), lambda row: False) is None


def test_silence_around_a_sound_is_found():
    assert sounding(torch.cat([torch.zeros(320), torch.ones(640), torch.zeros(960)])) == (320, 960)
    assert sounding(torch.zeros(100)) == (0, 100)


def test_phrases_stay_english():
    assert clause("people talking at a party") == "people talk at a party"
    assert clause("footsteps running on sand") == "footsteps run on sand"
    assert clause("mining machinery working") is None
    assert several("a gunshot", 4) == "four gunshots"
    assert usable(("rain and wind", "a dog is barking", "clock ticking")) == ()
