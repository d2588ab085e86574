"""What an edit keeps, what it makes anew, and that its ends are the round trip and generation."""

import pytest
import torch
from torch import Generator

from audioldm.diffusion.samplers import SAMPLERS
from audioldm.errors import AudioLDMError
from audioldm.pipeline import edit
from audioldm.pipeline.edit import Canvas
from audioldm.pipeline.guidance import METHODS, GuidanceConfig
from audioldm.pipeline.spans import Span
from audioldm.signal.splice import lowpass


@pytest.fixture(scope="module")
def wave():
    """A fading chord with some noise, at an odd length and off its middle."""
    time = torch.arange(19123) / 16000
    tones = sum(torch.sin(2 * torch.pi * hertz * time) for hertz in (220, 660, 1500))
    return (
        0.1 * tones * (-time).exp() + 0.01 * torch.randn(19123, generator=Generator().manual_seed(0)) + 0.02
    )


def roundtrip(pipe, wave):
    return Canvas.of(pipe, wave, refine_phase=0).roundtrip()


FROM_NOTHING = {
    "transfer": lambda pipe, wave, s: edit.transfer(pipe, wave, "a rooster", strength=s),
    "transfer inverted": lambda pipe, wave, s: edit.transfer(pipe, wave, "rain", strength=s, invert=True),
    "vary": lambda pipe, wave, s: edit.vary(pipe, wave, strength=s),
    "morph from itself": lambda pipe, wave, s: edit.morph(pipe, wave, wave, at=0.3, strength=s),
}


@pytest.mark.parametrize("name", FROM_NOTHING)
def test_strength_0_is_the_round_trip(pipe, wave, name):
    made = FROM_NOTHING[name](pipe, wave, 0.0)
    # morph mixes two latents and leaves the mean away: rounding, and the 0.02 of the fixture
    expected = roundtrip(pipe, wave) - (wave.mean() if "morph" in name else 0)
    assert torch.allclose(made, expected, atol=1e-5 if "morph" in name else 0)
    assert not torch.allclose(FROM_NOTHING[name](pipe, wave, 0.5), expected, atol=1e-3)


WAYS = {
    **{name: {"guidance_config": GuidanceConfig(method=name), "guidance": 3.0} for name in METHODS},
    "cfg_plus_plus": {"guidance_config": GuidanceConfig(method="cfg_plus_plus"), "guidance": 0.6},
    "no guidance": {"guidance": 1.0},
    "interval": {"guidance_config": GuidanceConfig(interval=(0.3, 1.0))},
    "threshold": {"guidance_config": GuidanceConfig(threshold=(0.95, 1.0))},
    "further prompts": {"guidance_config": GuidanceConfig(extra_prompts=(("wind", 1.0), ("speech", -0.5)))},
    "clap": {"guidance_config": GuidanceConfig(clap=1.0)},
}
RUNS = {
    **{name: {"sampler": name} for name in SAMPLERS},
    **{way: {"sampler": "ddim", **WAYS[way]} for way in WAYS},
}
RUNS["adaptive"] = {
    "sampler": "adaptive:rtol=0.1,atol=0.1"
}  # random weights are stiff: its own takes minutes


@pytest.mark.parametrize("name", RUNS)
def test_under_every_sampler_and_guidance_the_laws_hold(pipe, wave, name):
    """A mask of ones and strength 1 are generation, what lies outside a region is the round trip to the bit."""
    settings = {"guidance": 3.0, "steps": 3, **RUNS[name]}
    plain = pipe(["rain"], seeds=[5], seconds=len(wave) / 16000, **settings)[0]
    assert torch.equal(edit.transfer(pipe, wave, "rain", strength=1.0, seed=5, **settings), plain)
    assert torch.equal(edit.inpaint(pipe, wave, "rain", regions=[(0, 99)], seed=5, **settings), plain)
    made = edit.inpaint(pipe, wave, "rain", regions=[(0.3, 0.5)], **settings)
    before, fade = roundtrip(pipe, wave), round(edit.FADE * 16000)
    assert torch.equal(made[: 4800 - fade], before[: 4800 - fade])
    assert torch.equal(made[8000 + fade :], before[8000 + fade :])
    assert not torch.allclose(made[4800:8000], before[4800:8000], atol=1e-3)
    ddim = edit.inpaint(pipe, wave, "rain", regions=[(0.3, 0.5)], guidance=3.0, steps=3, sampler="ddim")
    # Euler, in sigma or on the straight path, is DDIM, and so is plain guidance
    assert name in ("ddim", "euler", "flow_euler", "classifier_free") or not torch.equal(made, ddim)


def test_several_regions_and_the_seed(pipe, wave):
    regions = [(0.1, 0.2), (0.6, 0.8)]
    one, again, other = (edit.inpaint(pipe, wave, "rain", regions=regions, seed=s) for s in (1, 1, 2))
    assert torch.equal(one, again)
    changed = one != other
    assert bool(changed[1600:3200].any() and changed[9600:12800].any())
    assert not bool(changed[4000:9000].any()), "between the regions nothing depends on the seed"


@pytest.mark.parametrize(("before", "after"), [(0.0, 0.5), (0.4, 0.0), (0.33, 2.5)])
def test_outpaint_adds_and_keeps(pipe, wave, before, after):
    made = edit.outpaint(pipe, wave, "rain", before=before, after=after)
    head, fade = round(before * 16000), round(edit.FADE * 16000)
    assert len(made) == len(wave) + head + round(after * 16000)
    inside = slice(head + fade, head + len(wave) - fade)
    assert torch.equal(made[inside], roundtrip(pipe, wave)[fade : len(wave) - fade])
    assert made[:head].abs().sum() > 0 or head == 0


def test_upscale_keeps_the_low_band_and_fills_the_high(pipe, wave):
    low = lowpass(wave, 3000, 16000)
    made = edit.upscale(pipe, low)
    spectra = [torch.fft.rfft(w).abs() for w in (made, low)]
    hertz = torch.arange(len(spectra[0])) * 16000 / len(wave)
    kept, new = hertz < 2700, hertz > 3400
    assert (spectra[0][kept] - spectra[1][kept]).abs().max() < 1e-3 * spectra[1].max()
    assert spectra[0][new].square().sum() > 10 * spectra[1][new].square().sum()
    with pytest.raises(AudioLDMError, match="whole band"):
        edit.upscale(pipe, torch.randn(16000, generator=Generator().manual_seed(0)))
    with pytest.raises(AudioLDMError, match="cutoff"):
        edit.upscale(pipe, low, cutoff=9000)
    with pytest.raises(AudioLDMError, match="is silent: it has no band"):
        edit.upscale(pipe, torch.zeros(16000))


def test_morph_reaches_both_ends(pipe, wave):
    other = wave.flip(0)[:15000]
    canvases = [Canvas.of(pipe, w[:15000], refine_phase=0) for w in (wave, other)]
    for at, canvas in zip((0.0, 1.0), canvases, strict=True):
        made = edit.morph(pipe, wave, other, at=at, strength=0.0)
        assert torch.allclose(made, canvas.raw(canvas.latent) / canvas.gain, atol=1e-5)
    swept = edit.morph(pipe, wave, other, at=None, strength=0.5)
    assert len(swept) == 15000


def test_denoise_only_takes_away_and_mix_only_adds(pipe, wave):
    noisy = wave + 0.05 * torch.randn(len(wave), generator=Generator().manual_seed(3))
    made = edit.denoise(pipe, noisy, "rain")
    assert made.square().sum() < noisy.square().sum()
    assert len(made) == len(noisy)
    mixed = edit.mix(pipe, [wave, wave[:1000]], gains=[0.0, -20.0], offsets=[0.0, 0.5])
    expected = wave.clone()
    expected[8000:9000] += 0.1 * wave[:1000]
    assert torch.allclose(mixed, expected)
    assert len(edit.mix(pipe, [wave, wave], "rain", offsets=[0, 0.2], strength=0.4)) == len(wave) + 3200


@pytest.mark.parametrize("samples", [1, 700, 30_001])
def test_any_length_comes_back_as_long(pipe, samples):
    wave = 0.1 * torch.randn(samples, generator=Generator().manual_seed(0))
    for made in (
        edit.transfer(pipe, wave, "rain", strength=0.5, steps=2),
        edit.transfer(pipe, wave, "rain", strength=0.5, steps=2, invert=True),
        edit.inpaint(pipe, wave, "rain", regions=[(0, samples / 32000)], steps=2),
        edit.denoise(pipe, wave, steps=2),
    ):
        assert made.shape == (samples,)
        assert bool(made.isfinite().all())


def test_long_sounds_meet_every_net_a_window_at_a_time(pipe, wave):
    seen = {}
    hooks = [
        net.register_forward_pre_hook(lambda net, given, name=name: seen.setdefault(name, set()).add(given[0].shape))
        for name, net in (("unet", pipe.unet), ("encoder", pipe.vae.encoder), ("vocoder", pipe.vocoder),
                          ("decoder", pipe.vae.decoder))
    ]  # fmt: skip
    for repeats in (3, 6):
        edit.inpaint(pipe, wave.repeat(repeats), "rain", regions=[(1, 2)], steps=2)
    for hook in hooks:
        hook.remove()
    assert {name: len(shapes) for name, shapes in seen.items()} == dict.fromkeys(seen, 1)
    assert next(iter(seen["unet"]))[2] == pipe.spec.latent_frames(pipe.defaults.seconds)


def test_prompts_over_time(pipe, wave):
    def made(told):
        return edit.inpaint(pipe, wave, told, regions=[(0, 99)], guidance=30.0)  # untrained: hardly listens

    rain = made("rain")
    same = (made([Span(0, 0.6, "rain"), Span(0.6, 9, "rain")]) - rain).abs()
    other = (made([Span(0, 0.6, "rain"), Span(0.6, 9, "noise")]) - rain).abs()
    assert same.max() < 1e-4, "one prompt in two spans: rounding of two shares that sum to 1"
    assert other[9600:].max() > 100 * same.max()


def test_the_level_that_comes_in_goes_out(pipe, wave):
    for gain in (0.2, 3.0):
        quiet = edit.transfer(pipe, gain * wave, "rain", strength=0.5)
        assert torch.allclose(quiet / gain, edit.transfer(pipe, wave, "rain", strength=0.5), atol=1e-3)


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda p, w: edit.transfer(p, w, "x", strength=1.5), "strength=1.5"),
        (lambda p, w: edit.inpaint(p, w, "x", regions=[]), "region"),
        (lambda p, w: edit.inpaint(p, w, "x", regions=[(0.5, 0.5)]), "empty"),
        (lambda p, w: edit.inpaint(p, w, "x", regions=[(7, 8)]), "continue"),
        (lambda p, w: edit.outpaint(p, w, "x"), "add nothing"),
        (lambda p, w: edit.morph(p, w, w, at=2.0), "at=2"),
        (lambda p, w: edit.mix(p, [w], gains=[0, 0]), "gains"),
        (lambda p, w: edit.transfer(p, w[:0], "x"), "empty"),
        (lambda p, w: edit.transfer(p, w * torch.nan, "x"), "finite"),
    ],
)
def test_wrong_use_is_told(pipe, wave, call, told):
    with pytest.raises(AudioLDMError, match=told):
        call(pipe, wave)


def test_unknown_settings_are_mistakes_of_the_programmer(pipe, wave):
    with pytest.raises(TypeError, match="stepps"):
        edit.transfer(pipe, wave, "x", stepps=3)
    with pytest.raises(ValueError, match="mono"):
        edit.transfer(pipe, wave[None], "x")
