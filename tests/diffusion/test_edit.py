"""Where an edit starts, what it keeps and what it mixes; every sampler keeps what it is told to keep."""

from math import pi

import pytest
import torch
from torch import Generator

from audioldm.diffusion import edit
from audioldm.diffusion.grids import trailing
from audioldm.diffusion.noise import PerSample
from audioldm.diffusion.prediction import spread
from audioldm.diffusion.samplers import SAMPLERS
from audioldm.diffusion.schedule import FlowPath, audioldm

SHAPE = (2, 3, 10, 4)


def gaussian(x, sigma):
    """The exact denoiser of a unit Gaussian."""
    return x / (1 + spread(sigma, x) ** 2)


@pytest.fixture
def known():
    return torch.randn(SHAPE, generator=Generator().manual_seed(1), dtype=torch.float64)


def source():
    draw = PerSample([3, 4], SHAPE[1:])
    return lambda: draw().double()


def run(name, denoise, known, mask, steps=6):
    noise, sigmas = source(), trailing(audioldm(), steps)
    x = (1 - mask) * known + float(sigmas[0]) * noise()
    return SAMPLERS[name](denoise, x, sigmas, noise=noise)


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_keeps_what_is_outside_the_mask(name, known):
    mask = edit.time_mask([(3.0, 6.0)], 10, 1.0).double()
    made = run(name, edit.inpaint(gaussian, known, mask), known, mask)
    # some samplers end with x + slope * step, which is exact to rounding only
    kept = made * (1 - mask)
    assert torch.allclose(kept, known * (1 - mask), atol=1e-10, rtol=0), (
        (kept - known * (1 - mask)).abs().max()
    )
    assert not torch.allclose(made * mask, known * mask, atol=0.1)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_mask_of_ones_is_generation_and_of_zeros_the_known(name, known):
    ones, zeros = torch.ones(10, 1).double(), torch.zeros(10, 1).double()
    noise, sigmas = source(), trailing(audioldm(), 6)
    plain = SAMPLERS[name](gaussian, noise() * float(sigmas[0]), sigmas, noise=noise)
    assert torch.equal(run(name, edit.inpaint(gaussian, known, ones), known, ones), plain)
    nothing = run(name, edit.inpaint(gaussian, known, zeros), known, zeros)
    assert torch.allclose(nothing, known, atol=1e-10, rtol=0)


def test_inpainting_follows_what_is_known():
    # two coordinates with correlation 0.9: where one is known to be 2, the other's mean is 1.8
    covariance = torch.tensor([[1.0, 0.9], [0.9, 1.0]], dtype=torch.float64)

    def denoise(x, sigma):
        return x @ torch.linalg.solve(covariance + sigma[0] ** 2 * torch.eye(2).double(), covariance)

    count = 4000
    known = torch.tensor([[2.0, 0.0]]).double().expand(count, 2)
    mask = torch.tensor([0.0, 1.0]).double()
    generator = Generator().manual_seed(0)

    def noise():
        return torch.randn(count, 2, generator=generator, dtype=torch.float64)

    sigmas = trailing(audioldm(), 50)
    inside = edit.inpaint(denoise, known, mask)

    def mean(rounds):
        x = (1 - mask) * known + float(sigmas[0]) * noise()
        return edit.repaint(
            lambda x, s: SAMPLERS["ddpm"](inside, x, s, noise=noise), x, sigmas, noise=noise, rounds=rounds
        )[:, 1].mean()

    once, often = mean(1), mean(10)
    assert 1.0 < once < 1.8, "replacing x0 alone falls short of the conditional mean"
    assert abs(often - 1.8) < abs(once - 1.8) / 2, (
        f"{once} {often}: resampling halves what is missing, at least"
    )


@pytest.mark.parametrize("schedule", [audioldm(), FlowPath()], ids=["audioldm", "flow"])
def test_strength_runs_from_no_noise_to_the_noisiest(schedule):
    levels = [edit.start_level(schedule, s) for s in (0.0, 0.1, 0.5, 0.9, 1.0)]
    assert levels[0] == 0
    assert levels == sorted(levels)
    assert levels[-1] == pytest.approx(float(schedule.sigmas[-1]))


def test_tail_is_a_grid_for_every_strength():
    sigmas = trailing(audioldm(), 20)
    for strength in torch.linspace(0.001, 1, 57).tolist():
        grid = edit.tail(sigmas, edit.start_level(audioldm(), strength))
        assert len(grid) >= 2 and bool((grid.diff() < 0).all()) and grid[-1] == 0
    assert torch.equal(edit.tail(sigmas, float(sigmas[0])), sigmas)
    assert edit.tail(sigmas, 0.0).tolist() == [0.0]


def test_time_mask_touches_every_frame_of_a_region():
    mask = edit.time_mask([(0.3, 0.41), (0.8, 5.0)], 10, 0.1).flatten().tolist()
    assert mask == [0, 0, 0, 1, 1, 0, 0, 0, 1, 1]
    assert edit.time_mask([(0.24, 0.32)], 10, 0.08).flatten().tolist() == [0, 0, 0, 1] + [0] * 6, (
        "0.24 / 0.08 is 3.0000000000000004: rounding touches no frame of its own"
    )


def test_slerp_keeps_the_length_and_the_ends():
    a, b = torch.randn(2, 3, 4, 5, generator=Generator().manual_seed(0), dtype=torch.float64).unbind(0)
    a, b = a[None], b[None] * (a.norm() / b.norm())
    assert torch.allclose(edit.slerp(a, b, 0.0), a) and torch.allclose(edit.slerp(a, b, 1.0), b)
    for fraction in (0.2, 0.5, 0.9):
        assert edit.slerp(a, b, fraction).norm() == pytest.approx(float(a.norm()))
    assert torch.allclose(edit.slerp(a, a, 0.3), a)
    x, y = torch.tensor([[1.0, 0.0]]).double(), torch.tensor([[0.0, 1.0]]).double()
    angle = torch.atan2(*edit.slerp(x, y, 0.25).flip(1).unbind(1))
    assert angle.item() == pytest.approx(pi / 8)


def test_slerp_takes_a_path_in_time():
    a, b = torch.randn(2, 1, 3, 4, 5, generator=Generator().manual_seed(0)).unbind(0)
    path = torch.linspace(0, 1, 4)[:, None]
    made = edit.slerp(a, b, path)
    for frame, fraction in enumerate(path.flatten().tolist()):
        assert torch.allclose(made[:, :, frame], edit.slerp(a, b, fraction)[:, :, frame], atol=1e-6)
