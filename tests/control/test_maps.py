"""Maps are what they say of sounds whose answer is known, and are drawn where they belong."""

import pytest
import torch

from audioldm.control.maps import MAPS, QUIET, centroid, edges, known, loudness, onset, pictures, pitch, yin
from audioldm.errors import AudioLDMError
from audioldm.signal.decibels import mel_position
from audioldm.spec import SPECS

SPEC = SPECS["16k_64"]
TIME = torch.arange(32000) / 16000


def harmonic(hertz: float) -> torch.Tensor:
    return sum(torch.sin(2 * torch.pi * k * hertz * TIME) / k for k in range(1, 6)) / 8


@pytest.mark.parametrize("hertz", [82.4, 146.8, 220.0, 440.0, 880.0, 1318.5])
def test_pitch_of_a_tone_is_its_fundamental(hertz):
    found = pitch(harmonic(hertz), SPEC)[10:-10]
    # 1 % is a sixth of a semitone: parabolic interpolation at 12 samples a period
    torch.testing.assert_close(found, torch.full_like(found, hertz), rtol=1e-2, atol=0)


def test_noise_and_silence_have_no_pitch():
    noise = 0.3 * torch.randn(32000, generator=torch.Generator().manual_seed(0))
    assert (pitch(noise, SPEC) == 0).float().mean() > 0.95
    assert (pitch(torch.zeros(32000), SPEC) == 0).all()
    assert (yin(torch.zeros(2, 1024), 16000) == 0).all()


def test_loudness_is_rms_in_decibels():
    quiet, loud = loudness(0.01 * harmonic(220), SPEC), loudness(harmonic(220), SPEC)
    torch.testing.assert_close(loud[10:-10] - quiet[10:-10], torch.full((180,), 40.0), rtol=1e-3, atol=0)
    assert (loudness(torch.zeros(16000), SPEC) == QUIET).all()


def test_onsets_are_where_sounds_begin():
    wave = torch.zeros(32000)
    for begin in (4000, 12000, 24000):
        burst = torch.arange(7000) / 16000
        wave[begin : begin + 7000] += torch.exp(-20 * burst) * torch.sin(2 * torch.pi * 700 * burst)
    found = onset(wave, SPEC).nonzero()[:, 0].tolist()
    assert len(found) == 3
    # the window of 1024 samples reaches 3 frames ahead
    assert all(
        abs(frame - begin // 160) <= 4 for frame, begin in zip(found, (4000, 12000, 24000), strict=True)
    )
    assert not onset(torch.zeros(32000), SPEC).any()


def test_centroid_is_the_tone_and_the_middle_of_white_noise():
    noise = 0.1 * torch.randn(32000, generator=torch.Generator().manual_seed(0))
    assert float(centroid(noise, SPEC).mean()) == pytest.approx(4000, rel=0.03)
    tone = centroid(0.3 * torch.sin(2 * torch.pi * 2000 * TIME), SPEC)[10:-10]
    torch.testing.assert_close(tone, torch.full_like(tone, 2000.0), rtol=0.02, atol=0)


def test_edges_frame_a_tone_and_leave_flat_places_alone():
    wave = torch.sin(2 * torch.pi * 2000 * TIME) * ((TIME > 0.5) & (TIME < 1.5))
    found = edges(wave, SPEC)
    place = round(float(mel_position(2000, SPEC)))
    assert found[40:60, place].any() and found[140:160, place].any(), "begin and end"
    assert not found[60:140, 5].any() and not found[:20].any()


@pytest.mark.parametrize("name", MAPS)
def test_each_map_is_a_picture_of_the_mels_size_in_0_to_1(name):
    for wave in (harmonic(330), torch.zeros(32000), torch.zeros(200)):
        curve = MAPS[name].analyse(wave, SPEC)
        seen = pictures(name, curve[None], SPEC)
        assert seen.shape == (1, 1, len(curve), 64)
        assert seen.isfinite().all() and seen.min() >= 0 and seen.max() <= 1
    assert MAPS[name].analyse(harmonic(330), SPEC).shape[0] == 200


def test_a_pitch_is_drawn_at_its_bin_and_an_unknown_map_is_refused():
    seen = pictures("pitch", torch.tensor([[440.0, 0.0]]), SPEC)[0, 0]
    assert int(seen[0].argmax()) == round(float(mel_position(440, SPEC))) and not seen[1].any()
    with pytest.raises(AudioLDMError, match="'speed' is no map"):
        known("speed")
