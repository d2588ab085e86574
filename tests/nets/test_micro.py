"""Micro-conditioning: sinusoids, exact neutrality, learning, saving."""

import pytest
import torch
from diffusers.models.embeddings import get_timestep_embedding
from hypothesis import given, settings
from hypothesis import strategies as st

from audioldm.batch import Condition
from audioldm.nets.folder import load_component, save_component
from audioldm.nets.micro import FIELDS, MicroConditioning, rows, sinusoidal_embedding, with_micro
from audioldm.nets.unet import build_unet, net_call

FACTS = torch.tensor([[0.0, 30.0, 44100.0, 10.0], [5.0, 30.0, 44100.0, 10.0], [0.0, 30.0, 16000.0, 10.0]])


@pytest.fixture
def micro() -> MicroConditioning:
    torch.manual_seed(0)
    return MicroConditioning(film_dim=8, dim=16, hidden=32)


def learn(micro: MicroConditioning, steps: int) -> None:
    """Some steps towards three different vectors."""
    target = torch.randn(3, 8, generator=torch.Generator().manual_seed(1))
    optimizer = torch.optim.Adam(micro.parameters(), lr=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        (micro(FACTS) - target).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize("dim", [2, 16, 320])
def test_sinusoids_are_those_of_the_unet(dim: int):
    t = torch.tensor([0.0, 1.0, 0.5, 499.25, 999.0])
    theirs = get_timestep_embedding(t, dim, flip_sin_to_cos=True, downscale_freq_shift=0)
    # speeds differ by a float32 rounding (1.2e-7 relative), times t <= 999
    assert torch.allclose(sinusoidal_embedding(t, dim), theirs, atol=2e-4, rtol=0)
    unet = build_unet("film", channels=(16, 16), latent_channels=4, layers=1, head_channels=8, groups=4)
    assert torch.allclose(sinusoidal_embedding(t, 16), unet.time_proj(t), atol=2e-4, rtol=0)


@settings(max_examples=30, deadline=None)
@given(a=st.floats(0, 1e3), b=st.floats(0, 1e3), shift=st.floats(0, 1e3))
def test_inner_products_know_differences_only(a: float, b: float, shift: float):
    pair = torch.tensor([[a, b], [a + shift, b + shift]], dtype=torch.float64)
    waves = sinusoidal_embedding(pair, 32)
    products = (waves[:, 0] * waves[:, 1]).sum(-1)
    # 32 products of cosines of angles up to 2000, each wrong by up to 2000 * 2^-53
    assert products[0].item() == pytest.approx(products[1].item(), abs=1e-10)
    assert waves.square().sum(-1).flatten().tolist() == pytest.approx([16.0] * 4, abs=1e-12)


def test_half_precision_values_are_widened():
    assert sinusoidal_embedding(torch.ones(2, dtype=torch.float16), 4).dtype == torch.float32
    assert sinusoidal_embedding(torch.ones(2, 3, dtype=torch.float64), 4).shape == (2, 3, 4)


@pytest.mark.parametrize("dim", [-2, 0, 3])
def test_odd_widths_are_refused(dim: int):
    with pytest.raises(ValueError, match="even and positive"):
        sinusoidal_embedding(torch.zeros(1), dim)


@pytest.mark.parametrize("kind", ["film", "both"])
def test_a_trained_unet_answers_exactly_as_before(kind, micro: MicroConditioning):
    torch.manual_seed(0)
    sizes = {"channels": (16, 16), "latent_channels": 4, "layers": 1, "head_channels": 8, "groups": 4}
    unet = build_unet(kind, film_dim=8, context_dim=6, **sizes).eval()
    g = torch.Generator().manual_seed(1)
    x, t = torch.randn(3, 4, 8, 4, generator=g), torch.tensor([10.0, 500.0, 900.0])
    condition = Condition(torch.randn(3, 8, generator=g), torch.randn(3, 5, 6, generator=g))
    with torch.no_grad():
        call, vector = net_call(unet), micro(FACTS)
        assert torch.equal(vector, torch.zeros(3, 8))
        before, after = call(x, t, condition), call(x, t, with_micro(condition, vector))
        assert torch.equal(before, after)
        assert not torch.equal(before, call(x, t, with_micro(condition, vector + 1.0)))


def test_gradient_flows_first_to_the_last_layer_then_to_all(micro: MicroConditioning):
    micro(FACTS).square().sum().backward()  # at a minimum of its own square there is none at all
    assert all(not p.grad.any() for p in micro.parameters())
    micro.zero_grad()
    micro(FACTS).sum().backward()
    assert micro.outside.weight.grad.any() and not micro.inside.weight.grad.any()
    learn(micro, 1)
    micro.zero_grad()
    micro(FACTS).sum().backward()
    assert all(p.grad.any() for p in micro.parameters())


def test_after_a_step_other_facts_give_other_vectors(micro: MicroConditioning):
    learn(micro, 1)
    base = torch.tensor([[5.0, 30.0, 44100.0, 10.0]])
    changed = base + torch.diag(torch.tensor([1.0, 1.0, 1000.0, 1.0]))
    vectors = micro(torch.cat([base, changed]))
    assert (torch.pdist(vectors) > 1e-4).all()  # each of the four facts is heard; float32 rounds at 1e-7


def test_it_can_be_learned(micro: MicroConditioning):
    target = torch.randn(3, 8, generator=torch.Generator().manual_seed(1))
    learn(micro, 150)
    assert (micro(FACTS) - target).square().mean() < 0.01 * target.square().mean()


def test_every_form_of_the_facts_is_the_same(micro: MicroConditioning):
    learn(micro, 1)
    named = {"rate": [44100.0, 44100, 16000], "start": torch.tensor([0, 5, 0]), "crop": 10, "seconds": 30.0}
    assert torch.equal(rows(named), FACTS)
    assert torch.equal(micro(named), micro(FACTS))
    assert torch.equal(rows((0.0, 30.0, 44100.0, 10.0)), FACTS[:1])
    assert torch.equal(rows(dict(zip(FIELDS, (0.0, 30.0, 44100.0, 10.0), strict=True))), FACTS[:1])


@pytest.mark.parametrize(
    ("facts", "match"),
    [
        ({"start": 0.0}, "needs exactly start, seconds, rate, crop; got start"),
        (torch.zeros(2, 3), r"must be \(B, 4\), got \(2, 3\)"),
        (torch.zeros(2, 2, 4), r"must be \(B, 4\)"),
        ((0.0, float("nan"), 1.0, 1.0), "finite"),
        ((-1.0, 1.0, 1.0, 1.0), "not negative"),
    ],
)
def test_wrong_facts_are_told(facts, match: str):
    with pytest.raises(ValueError, match=match):
        rows(facts)


def test_only_film_of_the_same_shape_takes_it():
    film = Condition(film=torch.ones(2, 8), mask=torch.ones(2, 1))
    assert torch.equal(with_micro(film, torch.ones(1, 8)).film, torch.full((2, 8), 2.0))
    assert with_micro(film, torch.ones(1, 8)).mask is film.mask
    assert with_micro(film.to(torch.float16), torch.ones(2, 8)).film.dtype == torch.float16
    with pytest.raises(ValueError, match="has none"):
        with_micro(Condition(tokens=torch.ones(2, 3, 8)), torch.ones(2, 8))
    for shape in ((2, 7), (3, 8)):
        with pytest.raises(ValueError, match="micro-conditioning"):
            with_micro(film, torch.ones(shape))


@pytest.mark.parametrize("units", [(1.0, 1.0, 1.0), (1.0, 1.0, 0.0, 1.0)])
def test_units_are_checked(units):
    with pytest.raises(ValueError, match="one positive size"):
        MicroConditioning(units=units)


def test_save_and_load_exactly(micro: MicroConditioning, tmp_path):
    learn(micro, 2)
    save_component(micro, tmp_path)
    again = load_component(tmp_path)
    assert isinstance(again, MicroConditioning)
    assert tuple(again.config.units) == tuple(micro.config.units)
    assert torch.equal(again(FACTS), micro(FACTS))


def test_half_precision_gives_half_precision(micro: MicroConditioning):
    learn(micro, 2)
    with torch.no_grad():
        exact, half = micro(FACTS), micro.to(torch.bfloat16)(FACTS)
    assert half.dtype == torch.bfloat16
    assert torch.allclose(half.float(), exact, atol=0.05 * float(exact.abs().max()))  # 8 bits of mantissa
