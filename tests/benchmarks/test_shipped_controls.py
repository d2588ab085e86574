"""The nets that are shipped are those that were measured, and each is better than no control."""

import json
from dataclasses import replace

import pytest
import torch

from audioldm.control.maps import MAPS
from audioldm.control.shipped import LIKE, SHIPPED, shipped
from audioldm.control.steer import MapControl, check_fits, load_net
from audioldm.nets.folder import sha256, weight_file
from audioldm.pipeline.audioldm import EMBEDDED, AudioLDM
from benchmarks.control import RESULTS, table
from benchmarks.like import table as like_table

NAMES = sorted({place.parent.name for place in SHIPPED.glob("*/config.json")} - {LIKE})


@pytest.fixture(scope="module")
def pipe():
    return AudioLDM.from_pretrained()


@pytest.fixture(scope="module")
def report():
    return json.loads((RESULTS / "control.json").read_text())


def test_the_table_is_that_of_the_numbers(report):
    assert NAMES and set(NAMES) <= report["nets"].keys()
    assert (RESULTS / "control.md").read_text() == table(report)


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_net_is_small_fits_and_beat_no_control(name, report, pipe):
    base = sha256(weight_file(EMBEDDED / "unet"))
    assert shipped(name, base) == SHIPPED / name and shipped(name, "another") is None
    assert weight_file(SHIPPED / name).stat().st_size < 8e6
    net = load_net(SHIPPED / name)
    check_fits(net, pipe.unet, pipe.spec, pipe.name)
    assert net.config.map == name and all(p.isfinite().all() for p in net.parameters())
    won, of = report["nets"][name]["wins"]["scale 1"]
    assert won >= 0.75 * of


def test_the_shipped_audio_prompt_fits_and_beat_the_words_alone(pipe):
    assert shipped(LIKE, sha256(weight_file(EMBEDDED / "unet"))) == SHIPPED / LIKE
    assert weight_file(SHIPPED / LIKE).stat().st_size < 8e6
    net = load_net(SHIPPED / LIKE)
    check_fits(net, pipe.unet, pipe.spec, pipe.name, dim=256)
    assert all(p.isfinite().all() for p in net.parameters())
    measured = json.loads((RESULTS / "like.json").read_text())
    assert (RESULTS / "like.md").read_text() == like_table(measured)
    assert min(measured["rows"]["attended 0.6"]["nearer"].values()) >= 0.75 * measured["clips"]


def test_there_is_none_for_a_map_that_nothing_reads():
    assert shipped("tempo", sha256(weight_file(EMBEDDED / "unet"))) is None


def test_a_shipped_net_makes_rain_swell(pipe):
    net, spec = load_net(SHIPPED / "loudness"), pipe.spec
    rise = torch.linspace(-45, -5, spec.frames(1.28))
    asked = {"seeds": [0], "seconds": 1.28, "steps": 6, "refine_phase": 0}
    heard = []
    for curve in (rise, rise.flip(0)):
        made = replace(pipe, controls=(MapControl(net, curve, spec),))(["rain falling"], **asked)[0]
        level = MAPS["loudness"].hear(made, spec)
        heard.append(float(level[-40:].mean() - level[:40].mean()))
    assert heard[0] > 3 and heard[1] < -3, "the same noise and words go up in one and down in the other"
