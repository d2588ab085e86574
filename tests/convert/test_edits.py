"""Edits with a published checkpoint's classes at toy widths: its schedule, its prediction, both CLAP towers."""

import pytest
import torch
from torch import Generator

from audioldm.pipeline import edit
from audioldm.pipeline.audioldm import AudioLDM
from audioldm.pipeline.edit import Canvas

EDITS = {
    "transfer": lambda pipe, wave, **s: edit.transfer(pipe, wave, "rain", strength=0.6, **s),
    "invert": lambda pipe, wave, **s: edit.transfer(pipe, wave, "rain", strength=0.6, invert=True, **s),
    "inpaint": lambda pipe, wave, **s: edit.inpaint(pipe, wave, "rain", regions=[(0.1, 0.3)], **s),
    "outpaint": lambda pipe, wave, **s: edit.outpaint(pipe, wave, "rain", after=0.3, **s),
    "upscale": lambda pipe, wave, **s: edit.upscale(pipe, wave, "rain", cutoff=3000.0, **s),
    "vary": lambda pipe, wave, **s: edit.vary(pipe, wave, strength=0.6, **s),
    "morph": lambda pipe, wave, **s: edit.morph(pipe, wave, wave.flip(0), strength=0.6, **s),
    "denoise": lambda pipe, wave, **s: edit.denoise(pipe, wave, "rain", strength=0.6, **s),
    "mix": lambda pipe, wave, **s: edit.mix(pipe, [wave, wave], "rain", strength=0.6, **s),
}


@pytest.fixture(scope="module")
def folder(pipe, tmp_path_factory):
    place = tmp_path_factory.mktemp("edits")
    pipe.save_pretrained(place)
    return AudioLDM.from_pretrained(place)


@pytest.fixture(scope="module")
def wave():
    return 0.1 * torch.randn(6000, generator=Generator().manual_seed(0))


@pytest.mark.parametrize("sampler", ["ddim", "dpmpp_2m", "euler_ancestral"])
@pytest.mark.parametrize("edit", EDITS)
def test_every_edit_runs(folder, wave, edit, sampler):
    sound = EDITS[edit](folder, wave, sampler=sampler, steps=2, seed=1)
    assert sound.shape == (6000 + 4800 * (edit == "outpaint"),)
    assert bool(sound.isfinite().all())


def test_the_laws_of_strength_and_mask(folder, wave):
    options = {"steps": 3, "seed": 5}
    plain = folder(["rain"], seeds=[5], seconds=6000 / 16000, steps=3)[0]
    near = {"rtol": 0, "atol": 1e-5}  # the grid ends above 0, and its alpha there is rounded from float32
    sound = edit.transfer(folder, wave, "rain", strength=1.0, **options)
    torch.testing.assert_close(sound, plain, **near)
    torch.testing.assert_close(edit.inpaint(folder, wave, "rain", regions=[(0, 9)], **options), plain, **near)
    trip = Canvas.of(folder, wave, refine_phase=0).roundtrip()
    assert torch.equal(edit.transfer(folder, wave, "rain", strength=0.0, refine_phase=0, **options), trip)
    kept = edit.inpaint(folder, wave, "rain", regions=[(0.2, 0.3)], refine_phase=0, **options)
    assert torch.equal(kept[:2000], trip[:2000])
    assert not torch.allclose(kept[3300:4700], trip[3300:4700], atol=1e-4)
