"""ControlNet, T2I-Adapter and audio prompt: exactly nothing before training, and only they learn."""

from dataclasses import replace

import pytest
import torch

from audioldm.batch import Condition
from audioldm.components import steered
from audioldm.control.controls import AudioPromptControl, MapControl, load_net
from audioldm.control.nets import ControlNet, IPAdapter, T2IAdapter, joined, widths_of
from audioldm.diffusion.windows import window_at
from audioldm.errors import AudioLDMError
from audioldm.nets.folder import save_component
from audioldm.nets.unet import build_unet, net_call
from audioldm.pipeline.audioldm import AudioLDM
from audioldm.spec import AudioSpec

SPEC = AudioSpec(latent_channels=4)
KINDS = ("film", "cross", "both")


def small(kind):
    torch.manual_seed(0)
    return build_unet(
        kind, channels=(16, 32, 48), latent_channels=4, layers=2, head_channels=8, film_dim=16, context_dim=24, groups=4
    ).eval()  # fmt: skip


def asked(rows=2):
    rng = torch.Generator().manual_seed(1)
    draw = lambda *shape: torch.randn(*shape, generator=rng)  # noqa: E731
    told = Condition(film=draw(rows, 16), tokens=draw(rows, 5, 24), mask=torch.ones(rows, 5).long())
    return draw(rows, 4, 16, 16), torch.tensor([10.0, 700.0])[:rows], told


def controls(unet, curve):
    return {
        "controlnet": MapControl(ControlNet.of(unet, "loudness", stride=4), curve, SPEC),
        "t2i_adapter": MapControl(T2IAdapter.of(unet, "loudness", stride=4, width=16), curve, SPEC),
        "ip_adapter": AudioPromptControl(IPAdapter(16, widths_of(unet), width=8), torch.ones(1, 16)),
    }


def moved(net):
    """The net with every zero layer set, as training would."""
    with torch.no_grad():
        for p in net.parameters():
            if not p.any():
                p.copy_(0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(2)))
    return net


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["controlnet", "t2i_adapter", "ip_adapter"])
@torch.no_grad()
def test_before_training_nothing_changes_and_after_it_something_does(kind, name):
    unet = small(kind)
    x, t, told = asked()
    call, control = net_call(unet), controls(unet, torch.linspace(-50, -5, 64))[name]
    plain = call(x, t, told)
    assert torch.equal(steered(call, [control], unet)(x, t, told), plain)
    moved(control.net)
    after = steered(call, [control], unet)(x, t, told)
    assert (after - plain).abs().max() > 1e-3
    assert torch.equal(steered(call, [replace(control, scale=0.0)], unet)(x, t, told), plain)
    assert torch.equal(call(x, t, told), plain), "nothing stays behind on the U-Net"
    half = steered(call, [replace(control, scale=0.5)], unet)(x, t, told)
    assert 0 < (half - plain).norm() < (after - plain).norm()


@pytest.mark.parametrize("name", ["controlnet", "t2i_adapter", "ip_adapter"])
@torch.no_grad()
def test_only_the_rows_that_are_led_are_steered(name):
    unet = small("film")
    x, t, told = asked()
    call, control = net_call(unet), controls(unet, torch.linspace(-50, -5, 64))[name]
    moved(control.net)
    plain, whole = call(x, t, told), steered(call, [control], unet)(x, t, told)
    first = steered(call, [control], unet, 1)(x, t, told)
    torch.testing.assert_close(first, torch.cat([whole[:1], plain[1:]]), rtol=0, atol=1e-5)
    assert steered(call, [control], unet, 0) is call


def test_guidance_strengthens_a_control_as_it_does_the_words(tiny_model):
    pipe = AudioLDM.from_pretrained(tiny_model)
    net = moved(T2IAdapter.of(pipe.unet, "loudness", stride=4, width=16))
    pipe = replace(pipe, controls=(MapControl(net, torch.linspace(-50, -5, 100), pipe.spec),))
    told, empty = pipe.encode_text(["rain"]), pipe.encode_text([""])
    x = torch.randn(1, *pipe.spec.latent_shape(0.64, 4), generator=torch.Generator().manual_seed(0))
    sigma = torch.tensor([1.0])
    with torch.no_grad():
        first, second = pipe.denoisers(told, empty)(x, sigma)
        plain = replace(pipe, controls=())
        torch.testing.assert_close(first, pipe.denoiser(told)(x, sigma))
        torch.testing.assert_close(second, plain.denoiser(empty)(x, sigma))
        assert not torch.allclose(pipe.denoiser(told)(x, sigma), plain.denoiser(told)(x, sigma))


@pytest.mark.parametrize("depth", [1, 2, 3])
@torch.no_grad()
def test_a_shallow_controlnet_is_smaller_and_steers_any_size(depth):
    unet = small("film")
    net = ControlNet.of(unet, "loudness", stride=4, depth=depth)
    assert len(net.encoder.down_blocks) == depth
    weigh = lambda n: sum(p.numel() for p in n.parameters())  # noqa: E731
    assert weigh(net) < weigh(ControlNet.of(unet, "loudness", stride=4)) or depth == 3
    rng = torch.Generator().manual_seed(1)
    for frames, bins in ((16, 16), (20, 12)):
        x, told = torch.randn(2, 4, frames, bins, generator=rng), asked()[2]
        call, curve = net_call(unet), torch.linspace(-50, -5, 4 * frames)
        spec = AudioSpec(latent_channels=4, mels=4 * bins) if bins != 16 else SPEC
        control = MapControl(net, curve, spec)
        fresh = ControlNet.of(unet, "loudness", stride=4, depth=depth)
        t = torch.tensor([10.0, 700.0])
        assert torch.equal(steered(call, [replace(control, net=fresh)], unet)(x, t, told), call(x, t, told))
        assert not torch.equal(
            steered(call, [replace(control, net=moved(net))], unet)(x, t, told), call(x, t, told)
        )
    with pytest.raises(ValueError, match="depth 4 of a U-Net of 3 levels"):
        ControlNet.of(unet, "loudness", stride=4, depth=4)


@torch.no_grad()
def test_a_control_shorter_than_the_clip_leaves_the_rest_alone_and_a_longer_one_is_cut():
    unet = small("film")
    net = moved(T2IAdapter.of(unet, "loudness", stride=4, width=16))
    x, t, told = asked()
    short, whole = torch.linspace(-40, -10, 32), torch.linspace(-40, -10, 64)
    call, added = net_call(unet), []
    steered(lambda *_, **residuals: added.append(residuals), [MapControl(net, short, SPEC)], unet)(x, t, told)
    (parts,) = (residuals["down_intrablock_additional_residuals"] for residuals in added)
    assert all(not part[:, :, part.shape[2] // 2 :].any() and part.any() for part in parts)
    longer = torch.cat([whole, torch.full((500,), -3.0)])
    made = [steered(call, [MapControl(net, c, SPEC)], unet)(x, t, told) for c in (whole, longer, short)]
    assert torch.equal(made[0], made[1]) and not torch.equal(made[0], made[2])


@torch.no_grad()
def test_a_silent_curve_is_a_control_too_and_two_add_up():
    unet = small("film")
    net = moved(T2IAdapter.of(unet, "loudness", stride=4, width=16))
    x, t, told = asked()
    silent = MapControl(net, torch.full((64,), -60.0), SPEC)
    once = steered(net_call(unet), [silent], unet)(x, t, told)
    assert once.isfinite().all() and not torch.equal(once, net_call(unet)(x, t, told))
    half = replace(silent, scale=0.5)
    torch.testing.assert_close(steered(net_call(unet), [half, half], unet)(x, t, told), once)
    assert joined({}, {"a": [x]}) == {"a": [x]}


@pytest.mark.parametrize("name", ["controlnet", "t2i_adapter", "ip_adapter"])
def test_folders_come_back_the_same(name, tmp_path):
    net = moved(controls(small("both"), torch.zeros(4))[name].net)
    save_component(net, tmp_path)
    again = load_net(tmp_path)
    assert all(torch.equal(v, net.state_dict()[k]) for k, v in again.state_dict().items())
    save_component(small("film"), tmp_path / "unet")
    with pytest.raises(AudioLDMError, match=r"unknown class|holds a UNet2DConditionModel"):
        load_net(tmp_path / "unet")


@torch.no_grad()
def test_a_window_sees_its_own_part_of_the_curve():
    unet = small("film")
    net = moved(T2IAdapter.of(unet, "loudness", stride=4, width=16))
    x, t, told = asked()
    curve = -60 + 60 * torch.rand(160, generator=torch.Generator().manual_seed(3))
    whole = steered(net_call(unet), [MapControl(net, curve, SPEC)], unet)
    with window_at(24, 40):  # of 16 frames: the last ones
        late = whole(x, t, told)
    shifted = steered(net_call(unet), [MapControl(net, curve[24 * 4 :], SPEC)], unet)
    assert torch.equal(late, shifted(x, t, told)) and not torch.equal(late, whole(x, t, told))
    with window_at(32, 40):  # a loop: over the end, then from the begin on
        over = whole(x, t, told)
    joint = steered(net_call(unet), [MapControl(net, torch.cat([curve[128:], curve[:32]]), SPEC)], unet)
    assert torch.equal(over, joint(x, t, told))


def test_long_clips_and_loops_follow_a_curve_too(tiny_model):
    pipe = AudioLDM.from_pretrained(tiny_model)
    net = T2IAdapter.of(pipe.unet, "loudness", stride=4, width=16)
    curve = torch.linspace(-50, -5, 300)
    pipe = replace(pipe, controls=(MapControl(net, curve, pipe.spec),))
    plain = replace(pipe, controls=())
    kind = {"seeds": [0], "steps": 2}
    cases = ({"seconds": 0.64}, {"seconds": 3.0}, {"seconds": 3.0, "loop": True})
    for case in cases:
        assert torch.equal(pipe(["rain"], **kind, **case), plain(["rain"], **kind, **case)), (
            "untrained: nothing"
        )
    moved(net)
    cut = replace(pipe, controls=(MapControl(net, curve[:200], pipe.spec),))
    for case in cases[1:]:
        whole, part = pipe(["rain"], **kind, **case), cut(["rain"], **kind, **case)
        assert not torch.equal(whole, plain(["rain"], **kind, **case))
        assert not torch.equal(whole, part), "the last second is steered as well"
