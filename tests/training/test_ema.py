"""Averages of weights: the power function against brute force, and any width from two that were stored."""

import pytest
import torch
from torch import nn

from audioldm.errors import AudioLDMError
from audioldm.training.ema import PowerEma, coefficients, exponent, overlap, synthesise


class Walk(nn.Module):
    """Weights that wander as training moves them: a slow drift and noise."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(0)
        noise = torch.randn(steps, 4, generator=g, dtype=torch.float64)
        drift = torch.linspace(0, 3, steps, dtype=torch.float64).sqrt()[:, None]
        self.path = drift + 0.3 * noise
        self.averaged = nn.Linear(4, 1, bias=False, dtype=torch.float64)
        self.batch_count, self.steps_now = 0, True

    def step(self) -> None:
        with torch.no_grad():
            self.averaged.weight.copy_(self.path[self.batch_count][None])
        self.batch_count += 1


class Alone:
    is_global_zero = True


def brute(path: torch.Tensor, g: float) -> torch.Tensor:
    """sum_s w_s theta_s with w_s the integral of p_g over ((s-1), s], t = len(path)."""
    s = torch.arange(len(path) + 1, dtype=torch.float64) / len(path)
    return ((s ** (g + 1)).diff()[:, None] * path).sum(0)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """200 steps, averages of widths 0.05 and 0.10 stored every 10."""
    folder = tmp_path_factory.mktemp("ema")
    walk, ema = Walk(200), PowerEma(folder, every=10)
    ema.on_train_start(Alone(), walk)
    for _ in range(200):
        walk.step()
        ema.on_train_batch_end(Alone(), walk)
    return folder, walk, ema


def test_the_update_is_the_power_function(stored):
    _, walk, ema = stored
    for width in ("0.05", "0.1"):
        want = brute(walk.path, exponent(float(width)))
        assert torch.allclose(ema.shadows[width]["weight"][0], want, atol=1e-12)  # the same sum, telescoped


@pytest.mark.parametrize(
    ("width", "at", "off"),
    [(0.04, 200, 0.1), (0.07, 200, 0.01), (0.1, 200, 0.01), (0.2, 200, 0.1), (0.08, 100, 0.02)],
)
def test_any_width_at_any_step_is_found_afterwards(stored, width: float, at: int, off: float):
    """Twenty stored pairs do not span the new density exactly; outside their widths it is further."""
    folder, walk, _ = stored
    average = synthesise(folder, width=width, at=at)["weight"][0].double()
    want = brute(walk.path[:at], exponent(width))
    assert (average - want).norm() < off * (walk.path[at - 1] - want).norm()


def test_widths_and_overlaps_by_numbers():
    for width in (0.02, 0.05, 0.1, 0.25):
        g = exponent(width)
        x = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
        p = (g + 1) * x**g
        mean = (p * x).mean()
        assert float(((p * (x - mean) ** 2).mean()) ** 0.5) == pytest.approx(width, rel=1e-6)
    g, h, t, s = (torch.tensor(v, dtype=torch.float64) for v in (3.0, 9.0, 2.0, 5.0))
    x = (torch.arange(400_000, dtype=torch.float64) + 0.5) / 400_000 * 2
    product = (g + 1) * x**g / t ** (g + 1) * (h + 1) * x**h / s ** (h + 1)
    assert float(overlap(t, g, s, h)) == pytest.approx(float(product.mean() * 2), rel=1e-8)


def test_shares_sum_to_one_and_find_what_is_there(tmp_path):
    t = torch.tensor([10.0, 20.0, 30.0, 30.0])
    g = torch.tensor([exponent(w) for w in (0.05, 0.1, 0.05, 0.1)])
    shares = coefficients(t, g, at=30, width=0.1)
    assert torch.allclose(shares, torch.tensor([0, 0, 0, 1.0]).double(), atol=1e-8)
    assert float(coefficients(t, g, at=30, width=0.07).sum()) == pytest.approx(1, abs=1e-9)
    with pytest.raises(AudioLDMError, match="no stored averages"):
        synthesise(tmp_path, width=0.1)
    with pytest.raises(AudioLDMError, match=r"width=0\.3"):
        exponent(0.3)
