"""What a control is judged by: each number on curves whose answer is known."""

import pytest
import torch

from audioldm.spec import SPECS
from benchmarks.control import onset_f1, pitch_cents, pitch_right, scores, wins

SPEC = SPECS["16k_64"]


def tone(hertz, level=0.5):
    return level * torch.sin(2 * torch.pi * hertz * torch.arange(16000) / 16000)


def test_a_sound_matches_itself_and_an_octave_is_an_octave():
    wave = tone(220.0) * (torch.arange(16000) > 6000)
    same = scores(wave, wave, SPEC)
    assert (same["loudness_rmse_db"], same["pitch_right"], same["pitch_cents"]) == (0, 1, 0)
    assert same["onset_f1"] == 1 and same["centroid_octaves"] == 0
    assert same["loudness_r"] == pytest.approx(1, abs=1e-5) and same["edges_r"] == pytest.approx(1, abs=1e-5)
    other = scores(tone(220.0), tone(440.0), SPEC)
    assert other["pitch_cents"] == pytest.approx(1200, abs=5) and other["pitch_right"] == 0
    assert other["centroid_octaves"] == pytest.approx(1, abs=0.1) and other["edges_r"] < 0.8
    assert scores(tone(220.0), 0.1 * tone(220.0), SPEC)["loudness_rmse_db"] < 0.1, (
        "a level of the whole is free"
    )
    part = scores(wave, 0.1 * wave, SPEC)[
        "loudness_rmse_db"
    ]  # silence stays at the floor: 20 dB sqrt(p (1 - p))
    assert part == pytest.approx(20 * (0.375 * 0.625) ** 0.5, abs=1), "the curves are smoothed over 0.11 s"


def test_no_pitch_is_wrong_but_has_no_distance():
    wanted, made = torch.tensor([200.0, 200.0, 0.0, 200.0]), torch.tensor([204.0, 0.0, 300.0, 250.0])
    assert pitch_right(wanted, made) == pytest.approx(1 / 3)
    assert pitch_cents(wanted, made) == pytest.approx(34.3, abs=0.1)  # the lower of the two
    assert pitch_right(torch.zeros(4), made) is None and pitch_cents(torch.zeros(4), made) is None


def test_an_onset_is_found_once():
    wanted, made = torch.zeros(100), torch.zeros(100)
    wanted[[10, 50]] = 1.0
    made[[12, 14, 80]] = 1.0
    assert onset_f1(wanted, made) == pytest.approx(2 * 1 / 5)


def test_wins_are_counted_over_pairs_that_have_the_number():
    off = [{"onset_f1": 0.1}, {"onset_f1": None}, {"onset_f1": 0.5}]
    on = [{"onset_f1": 0.2}, {"onset_f1": 0.9}, {"onset_f1": 0.5}]
    assert wins("onset_f1", off, on) == [1, 2]
