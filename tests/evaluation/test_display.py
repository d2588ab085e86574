"""Side by side in a notebook: bytes that no browser rescales, pictures on one scale, axes with units."""

import base64
import io
import re

import numpy as np
import pytest
import soundfile
import torch

from audioldm.spec import SPECS
from notebooks.side_by_side import log_mels, players

SPEC = SPECS["16k_64"]
TIME = np.arange(SPEC.rate) / SPEC.rate
LOUD = (0.5 * np.sin(2 * np.pi * 440 * TIME)).astype(np.float32)


def heard(markup):
    """The sounds that a page would play."""
    found = re.findall(r'src="data:audio/wav;base64,([^"]+)"', markup.data)
    return [soundfile.read(io.BytesIO(base64.b64decode(text)), dtype="float32")[0] for text in found]


def test_players_keep_the_level():
    markup = players({"tone": {"loud": LOUD, "soft": torch.from_numpy(0.01 * LOUD)}}, SPEC.rate)
    loud, soft = heard(markup)
    assert loud == pytest.approx(LOUD, abs=1 / 32768)
    assert soft == pytest.approx(0.01 * LOUD, abs=1 / 32768)
    assert "turned down" not in markup.data


def test_what_exceeds_full_scale_turns_all_down_together():
    markup = players({"tone": {"over": 4 * LOUD, "soft": LOUD}}, SPEC.rate)
    over, soft = heard(markup)
    assert np.abs(over).max() == pytest.approx(10 ** (-1 / 20), abs=1e-3)
    assert over == pytest.approx(4 * soft, abs=4 / 32768)
    assert "All turned down by 7.0 dB" in markup.data


def test_names_are_text_and_gaps_stay_empty():
    markup = players({"<b>": {"x": LOUD}, "second": {"y": LOUD}}, SPEC.rate)
    assert "<b>" not in markup.data
    assert markup._repr_html_().count("<td></td>") == 2
    with pytest.raises(ValueError, match=r"one wave \(N,\)"):
        players({"a": {"b": LOUD[None]}}, SPEC.rate)


def test_log_mels_share_one_scale_and_have_units():
    figure = log_mels({"a": {"loud": LOUD, "soft": 0.1 * LOUD}, "b": {"loud": LOUD[:8000]}}, SPEC)
    images = [image for axes in figure.axes for image in axes.images]
    assert len(images) == 3
    assert len({image.get_clim() for image in images}) == 1
    low, high = images[0].get_clim()
    assert high - low == 80
    loud, soft = (image.get_array().max() for image in images[:2])
    assert loud - soft == pytest.approx(20, abs=0.1)
    labels = {axes.get_xlabel() for axes in figure.axes} | {axes.get_ylabel() for axes in figure.axes}
    assert {"time (s)", "mel magnitude (dB)", "a\nmel frequency (Hz)"} <= labels
    assert images[2].get_extent()[1] == pytest.approx(0.5, abs=0.02), (
        "a shorter clip takes less of the time axis"
    )
