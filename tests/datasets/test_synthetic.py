"""Synthetic sounds are what their captions say."""

import pytest
import torch
from torch.utils.data import DataLoader

from audioldm.datasets.audio_text import collate
from audioldm.datasets.synthetic import HIGH, LOW, SOUNDS, Synthetic
from audioldm.spec import SPECS

SPEC = SPECS["16k_64"]
KINDS = list(SOUNDS)


def peak(wave):
    """Hz of the strongest frequency in (N,)."""
    spectrum = torch.fft.rfft(wave * torch.hann_window(len(wave))).abs()
    return float(spectrum.argmax()) * SPEC.rate / len(wave)


def sounds(kind, count=5, seed=0):
    data = Synthetic(SPEC, 1.0, len(KINDS) * count, seed)
    return [data[KINDS.index(kind) + len(KINDS) * turn][0][0] for turn in range(count)]


def test_items_are_like_audio_text_items():
    data = Synthetic(SPEC, 0.5, 9, seed=1)
    assert len(data) == len(list(data)) == 9
    wave, caption, name = data[8]
    assert wave.shape == (1, 8000) and wave.dtype == torch.float32
    assert caption in SOUNDS["high tone"][1] and name == "high tone/8"
    batch = next(iter(DataLoader(data, batch_size=4, collate_fn=collate)))
    assert batch.wave.shape == (4, 1, 8000)
    first, longer, other = (Synthetic(SPEC, 0.5, size, seed) for size, seed in [(3, 0), (9, 0), (3, 1)])
    assert all(torch.equal(first[i][0], longer[i][0]) and first[i][1:] == longer[i][1:] for i in range(3))
    assert not torch.equal(first[0][0], other[0][0])


def test_levels_never_clip_and_tones_lie_in_their_band():
    for wave in (wave for kind in KINDS for wave in sounds(kind)):
        assert torch.isfinite(wave).all() and 0.1 < wave.abs().max() <= 0.8
    for kind, band in (("low tone", LOW), ("high tone", HIGH)):
        for wave in sounds(kind):
            assert band[0] - 1 <= peak(wave) <= band[1] + 1  # one bin of a one-second transform is 1 Hz


@pytest.mark.parametrize(("kind", "sign"), [("rising chirp", 1), ("falling chirp", -1)])
def test_chirps_move_from_band_to_band(kind, sign):
    for wave in sounds(kind):
        begin, end = (peak(part) for part in (wave[:1600], wave[-1600:]))
        assert sign * (end - begin) > 800


def test_noise_is_flat_and_rumble_is_low():
    for white, low in zip(sounds("white noise"), sounds("low rumble"), strict=True):
        power = torch.fft.rfft(white).abs().square()
        # 4000 bins in each half, each exponential: the ratio's deviation is 2 %
        assert power[:4000].sum() / power[4000:8000].sum() == pytest.approx(1.0, abs=0.1)
        low_power = torch.fft.rfft(low).abs().square()
        assert low_power[202:].sum() < 1e-6 * low_power.sum()


def test_clicks_are_short_and_several():
    for wave in sounds("clicks"):
        loud = (wave.abs() > 0.3 * wave.abs().max()).long()
        onsets = [i for i in torch.nonzero(loud).flatten().tolist() if not loud[max(0, i - 800) : i].any()]
        assert 2 <= len(onsets) <= 9
        assert loud.float().mean() < 0.05


def test_edges():
    assert Synthetic(SPEC, 1 / 16000, 7)[2][0].shape == (1, 1)
    with pytest.raises(IndexError):
        Synthetic(SPEC, 0.5, 3)[3]
