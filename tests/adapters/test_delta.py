"""The change of a weight, by its definition and against peft."""

import pytest
import torch

from audioldm.adapters.delta import DELTAS, STARTS, factorise, lokr

SHAPES = [(6, 8), (8, 6), (12, 6, 3, 3), (8, 4, 1, 1), (7, 5)]


def filled(kind, weight, rank, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return {
        k: torch.randn(v.shape, generator=rng).double() for k, v in STARTS[kind](weight, rank, rng).items()
    }


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", DELTAS)
def test_a_new_adapter_changes_nothing_at_all(kind, shape):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    factors = STARTS[kind](weight, 2, torch.Generator().manual_seed(0))
    assert torch.equal(DELTAS[kind](weight, factors, 0.7), torch.zeros(shape))


@pytest.mark.parametrize("shape", SHAPES)
def test_changes_are_their_formulas(shape):
    weight, rank, scale = torch.randn(shape).double(), 2, 0.7
    wide = (shape[0], weight[0].numel())
    f = filled("lora", weight, rank)
    low = scale * torch.einsum("or,ri->oi", f["lora_up"].reshape(-1, rank), f["lora_down"].reshape(rank, -1))
    torch.testing.assert_close(DELTAS["lora"](weight, f, scale), low.reshape(shape))
    f = filled("dora", weight, rank)
    moved = weight + DELTAS["lora"](weight, f, scale)
    turned = moved + 0
    for row in range(shape[0]):
        turned[row] *= f["dora_scale"][row] / moved[row].square().sum().sqrt()
    torch.testing.assert_close(DELTAS["dora"](weight, f, scale), turned - weight)
    f = filled("loha", weight, rank)
    products = torch.zeros(wide).double()
    for r in range(rank):
        for s in range(rank):
            one = torch.outer(f["hada_w1_a"][:, r], f["hada_w1_b"][r])
            products += one * torch.outer(f["hada_w2_a"][:, s], f["hada_w2_b"][s])
    torch.testing.assert_close(DELTAS["loha"](weight, f, scale), scale * products.reshape(shape))
    f = filled("lokr", weight, rank)
    w2 = f["lokr_w2"] if "lokr_w2" in f else f["lokr_w2_a"] @ f["lokr_w2_b"]
    (rows, columns), inside = f["lokr_w1"].shape, shape[1] // f["lokr_w1"].shape[1]
    w2 = w2.reshape(shape[0] // rows, inside, *shape[2:])
    blocks = torch.cat(
        [torch.cat([f["lokr_w1"][i, j] * w2 for j in range(columns)], dim=1) for i in range(rows)]
    )
    torch.testing.assert_close(DELTAS["lokr"](weight, f, scale), scale * blocks)


def test_a_row_of_zeros_stays_finite_under_dora():
    weight = torch.randn(4, 3)
    weight[1] = 0
    weight.requires_grad_()
    factors = STARTS["dora"](weight, 2, torch.Generator().manual_seed(0))
    change = DELTAS["dora"](weight, factors, 1.0)
    change.sum().backward()
    assert torch.equal(change, torch.zeros(4, 3)) and weight.grad.isfinite().all()


def test_factorisation_is_exact_and_as_even_as_can_be():
    for number in range(1, 400):
        small, large = factorise(number)
        assert small * large == number and small <= large
        assert not any(number % d == 0 for d in range(small + 1, int(number**0.5) + 1))


def test_factors_of_another_weight_are_refused():
    f = filled("lora", torch.zeros(6, 8), 2)
    with pytest.raises(ValueError, match=r"a weight of \(6, 8\), not \(8, 6\)"):
        DELTAS["lora"](torch.zeros(8, 6).double(), f, 1.0)
    f = {"lokr_w1": torch.ones(2, 2), "lokr_w2": torch.ones(3, 4)}
    with pytest.raises(ValueError, match="not"):
        lokr(torch.zeros(6, 9), f, 1.0)
