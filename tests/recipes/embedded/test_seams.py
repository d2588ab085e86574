"""The seam statistic sees seams where there are some, and none in sound that goes on."""

import pytest
import torch
from torch import Generator

from audioldm.pipeline import longform
from audioldm.pipeline.audioldm import AudioLDM
from audioldm.signal.splice import lowpass
from audioldm.spec import AudioSpec
from recipes.embedded.release_checks import edits
from recipes.embedded.release_checks.edits import RealClip

SPEC = AudioSpec()


def noise(seconds: float, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(SPEC.samples(seconds), generator=Generator().manual_seed(seed))


def test_steady_noise_has_no_seams() -> None:
    table = edits.Seams()
    for seed in range(8):
        table.add(noise(6.0, seed), [1.0, 2.0, 3.0, 4.0, 5.0], SPEC)
    row = table.row("noise")
    assert row["frames"] > 300
    assert row["median"] == pytest.approx(1, abs=0.05)
    assert row["p95"] == pytest.approx(row["p95_elsewhere"], rel=0.05)
    assert row["stand_out"] == pytest.approx(0.05, abs=0.04)  # 4 standard errors of 40 independent places


def test_a_change_of_level_or_of_colour_stands_out() -> None:
    louder = torch.cat([noise(2.0), 4 * noise(2.0, 1)])
    darker = torch.cat([noise(2.0), lowpass(noise(2.0, 1), 1000.0, SPEC.rate)])
    for wave in (louder, darker):
        table = edits.Seams()
        table.add(wave, [2.0], SPEC)
        at, elsewhere = table.at[0], table.elsewhere[0]
        assert at.max() > elsewhere.max()


def test_the_places_of_a_seam() -> None:
    mask = edits.near(399, [2.0], SPEC)
    assert mask.nonzero().flatten().tolist() == list(range(199 - 4, 199 + 5))
    assert not edits.near(399, [], SPEC).any()


def test_the_table_has_its_rows(tiny_model) -> None:
    pipe = AudioLDM.from_pretrained(tiny_model)
    window = longform.window_frames(pipe)
    places = edits.joints(pipe, window * 2)
    assert len(places) == 3, "three windows, half over one another: one ends in another's middle"
    assert all(0 < place < 2 * window * pipe.spec.seconds_per_latent for place in places)
    count = []
    rows = edits.seams(pipe, [RealClip("rain", noise(1.28))], lambda: count.append(1), steps=2)
    assert len(count) == len(edits.STEADY) + 1
    by_name = {row["method"].split(":")[0]: row for row in rows}
    assert {"long", "schedule", "loop", "glued", "inpaint --splice", "continue"} <= by_name.keys()
    assert by_name["silence at these places"]["stand_out"] > 0.2, "the sound stops there, twice"
    assert all(row["frames"] > 0 for row in rows)
