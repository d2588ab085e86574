"""The nets that are shipped fit the embedded model, are small, and steer."""

from dataclasses import replace

import pytest
import torch

from audioldm.adapters.files import read
from audioldm.control.controls import IP_ADAPTER, SHIPPED, MapControl, check_fits, load_net, shipped
from audioldm.control.maps import MAPS
from audioldm.convert.reference import EMBEDDED
from audioldm.nets.folder import weight_file
from audioldm.paths import sha256
from audioldm.pipeline.audioldm import AudioLDM

NAMES = sorted({place.parent.name for place in SHIPPED.glob("*/config.json")})


@pytest.fixture(scope="module")
def pipe():
    return AudioLDM.from_pretrained()


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_net_is_small_and_fits(name, pipe):
    base = sha256(weight_file(EMBEDDED / "unet"))
    assert shipped(name, base) == SHIPPED / name and shipped(name, "another") is None
    assert weight_file(SHIPPED / name).stat().st_size < 8e6
    net = load_net(SHIPPED / name)
    check_fits(net, pipe.unet, pipe.spec, pipe.name, dim=256 if name == IP_ADAPTER else None)
    assert name == IP_ADAPTER or net.config.map == name
    assert all(p.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize(
    "file", sorted((EMBEDDED / "adapters").glob("*.safetensors")), ids=lambda file: file.stem
)
def test_a_shipped_adapter_was_trained_on_the_u_net_that_is_here(file, pipe):
    assert read(file, pipe.unet).base == {"unet": sha256(weight_file(EMBEDDED / "unet"))}


def test_a_shipped_net_makes_rain_swell(pipe):
    net, spec = load_net(SHIPPED / "loudness"), pipe.spec
    rise = torch.linspace(-45, -5, spec.frames(1.28))
    asked = {"seeds": [0], "seconds": 1.28, "steps": 6, "refine_phase": 0}
    heard = []
    for curve in (rise, rise.flip(0)):
        made = replace(pipe, controls=(MapControl(net, curve, spec),))(["rain falling"], **asked)[0]
        level = MAPS["loudness"].analyse(made, spec)
        heard.append(float(level[-40:].mean() - level[:40].mean()))
    assert heard[0] > 3 and heard[1] < -3, "the same noise and words go up in one and down in the other"
