"""The builders' defaults are AudioLDM's nets: parameter counts and lengths from the published models."""

import pytest
import torch

from audioldm.batch import Condition
from audioldm.nets.hifigan import build_hifigan, generate, vocode
from audioldm.nets.unet import build_unet, kind_of, multiple_of, net_call
from audioldm.nets.vae import build_vae, decode, encode, stride_of


def millions(build) -> float:
    with torch.device("meta"):
        return sum(p.numel() for p in build().parameters()) / 1e6


def test_unet_s_has_185_04_million_parameters():
    assert millions(build_unet) == pytest.approx(185.04, abs=0.005)


def test_vae_has_55_377_million_parameters():
    assert millions(build_vae) == pytest.approx(55.377, abs=0.0005)


def test_hifigan_has_55_27_million_values():
    with torch.device("meta"):
        values = sum(v.numel() for v in build_hifigan().state_dict().values())
    assert values == 55_265_025  # 55.27 M with the 128 numbers of its mean and scale


def test_heads_follow_the_width_not_diffusers_default():
    assert tuple(build_meta().config.attention_head_dim) == (4, 8, 12, 20)


def build_meta():
    with torch.device("meta"):
        return build_unet()


def test_vocoder_gives_one_hop_a_frame_although_its_raw_output_is_32_samples_longer():
    vocoder = build_hifigan(channels=32, kernels=(3,), dilations=((1,),)).eval()
    mel = torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert vocoder(mel[:, 0]).shape[-1] == 160 * 64 + 32
        assert vocode(vocoder, mel).shape == (2, 1, 160 * 64)
    with pytest.raises(ValueError, match=r"\(B, 1, T, F\)"):
        vocode(vocoder, mel[:, 0])


@pytest.mark.parametrize("levels", [2, 3, 4])
def test_vae_round_trip_keeps_the_shape(levels: int):
    vae = build_vae(channels=(8,) * levels, latent_channels=4, layers=1, groups=4).eval()
    mel = torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        mean, std = encode(vae, mel)
        assert mean.shape == std.shape == (2, 4, 64 // stride_of(vae), 64 // stride_of(vae))
        assert bool((std > 0).all())
        assert decode(vae, mean).shape == mel.shape
    with pytest.raises(ValueError, match="multiples"):
        encode(vae, mel[:, :, :-1])


@pytest.mark.parametrize("kind", ["film", "cross", "both"])
def test_each_kind_of_unet_uses_what_it_is_told_and_asks_for_it(kind: str):
    torch.manual_seed(0)
    unet = build_unet(
        kind,
        channels=(16, 32),
        latent_channels=4,
        layers=1,
        head_channels=8,
        film_dim=12,
        context_dim=20,
        groups=4,
    ).eval()
    assert kind_of(unet) == kind
    assert multiple_of(unet) == 2
    call, g = net_call(unet), torch.Generator().manual_seed(1)
    x, t = torch.randn(2, 4, 8, 4, generator=g), torch.tensor([3, 700])
    film, tokens = torch.randn(2, 12, generator=g), torch.randn(2, 5, 20, generator=g)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]])
    with torch.no_grad():
        base = call(x, t, Condition(film, tokens, mask))
        assert base.shape == x.shape
        other_film = call(x, t, Condition(film + 1, tokens, mask))
        other_tokens = call(x, t, Condition(film, tokens.flip(1), mask))
        masked = tokens.clone()
        masked[1, 2:] += 5
        hidden = call(x, t, Condition(film, masked, mask))
    assert torch.equal(base, other_film) == (kind == "cross")
    assert torch.equal(base, other_tokens) == (kind == "film")
    # a masked token carries a weight of exp(-10000), which is 0 in float32
    assert torch.allclose(base, hidden, atol=1e-6)
    missing = Condition(tokens=tokens) if kind != "cross" else Condition(film=film)
    with pytest.raises(ValueError, match="the condition has none"):
        call(x, t, missing)
    with pytest.raises(ValueError, match="choose film, cross or both"):
        build_unet("concat")


@pytest.mark.parametrize("normalise", [False, True])
def test_vocoder_as_pictures_is_the_vocoder(normalise: bool):
    values = {"mel_mean": -4.63, "mel_std": 2.74} if normalise else {}
    vocoder = build_hifigan(channels=64, kernels=(3, 7), dilations=((1, 3), (1, 3)), **values).eval()
    mel = torch.randn(2, 1, 40, 64, generator=torch.Generator().manual_seed(0)) * 2 - 4
    with torch.no_grad():
        own, ours = vocoder(mel[:, 0])[:, None], generate(vocoder, mel)
    assert own.shape == ours.shape
    assert torch.allclose(own, ours, atol=1e-5 * float(own.abs().max()))  # sums in another order
