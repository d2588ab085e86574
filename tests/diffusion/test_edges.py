import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from audioldm.diffusion import grids, noise, schedule
from audioldm.diffusion import samplers as A
from audioldm.diffusion.prediction import as_denoiser, spread
from audioldm.diffusion.samplers import ddim_invert
from audioldm.errors import AudioLDMError

SCHEDULE = schedule.audioldm()


def denoise(x, sigma):
    """N(0, 1)."""
    return x / (1 + spread(sigma, x) ** 2)


@given(
    name=st.sampled_from(list(A.SAMPLERS)),
    steps=st.sampled_from([1, 2, 3, 8]),
    shape=st.sampled_from([(1, 1), (1, 2, 2, 2), (4, 4), (4, 4, 4, 4), (3, 2, 3)]),
    dtype=st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]),
    grid=st.sampled_from(list(grids.GRIDS)),
)
@settings(max_examples=100, deadline=None)
def test_any_steps_shape_and_type(name, steps, shape, dtype, grid):
    sigmas = grids.GRIDS[grid](SCHEDULE, steps)
    source = noise.PerSample(range(shape[0]), shape[1:])
    x = (sigmas[0] * source()).to(dtype)
    before, levels, seen = x.clone(), sigmas.clone(), []
    out = A.SAMPLERS[name](
        denoise,
        x,
        sigmas,
        noise=source,
        on_step=lambda i, sigma, x, x0: seen.append((i, sigma, x.shape, x0.shape)),
    )
    assert out.shape == x.shape
    assert out.dtype == dtype
    assert out.isfinite().all()
    assert torch.equal(x, before)
    assert torch.equal(sigmas, levels)
    if name != "adaptive":
        assert [i for i, *_ in seen] == list(range(steps))
        assert [s for _, s, *_ in seen] == pytest.approx(sigmas[:-1].tolist())
    assert all(a == b == x.shape for *_, a, b in seen)


@pytest.mark.parametrize("name", A.SAMPLERS)
def test_one_step_is_the_denoised_start(name):
    x = 80 * torch.randn(3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sigmas = torch.tensor([80.0, 0.0]).double()
    got = A.SAMPLERS[name](denoise, x, sigmas, noise=lambda: torch.randn(3, 3))
    if name == "flow_midpoint":
        return  # its one step also asks half way
    torch.testing.assert_close(got, denoise(x, torch.full((3,), 80.0).double()), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", A.SAMPLERS)
def test_a_grid_that_does_not_end_at_zero_stops_at_its_level(name):
    """From N(0, 1 + 20^2) down to level 1: the spread there is sqrt(2)."""
    count = 3000
    gen = torch.Generator().manual_seed(0)
    draw = lambda: torch.randn(count, 1, generator=gen, dtype=torch.float64)  # noqa: E731
    sigmas = torch.linspace(20 ** (1 / 7), 1, 200, dtype=torch.float64) ** 7
    jump = lambda x, s: x / (1 + spread(s, x) ** 2).sqrt()  # noqa: E731
    out = A.SAMPLERS[name](jump if name == "consistency" else denoise, 401**0.5 * draw(), sigmas, noise=draw)
    # 3 standard errors, and up to 3 % for first-order steps and the corrector
    assert abs(out.std() / 2**0.5 - 1) < 3 / (2 * count) ** 0.5 + 0.03


@pytest.mark.parametrize("name", A.SAMPLERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_sample_alone_is_the_sample_in_a_batch(name, dtype):
    sigmas, shape = grids.karras(SCHEDULE, 12), (2, 4, 3)

    def net(x_t, t):
        return torch.tanh(x_t) * spread(t / 1000, x_t) + x_t.flatten(1).mean(1).reshape(-1, 1, 1, 1)

    def run(numbers):
        source = noise.PerSample(numbers, shape)
        return A.SAMPLERS[name](
            as_denoiser(net, SCHEDULE, prediction="v"), (sigmas[0] * source()).to(dtype), sigmas, noise=source
        )

    together, alone = run([4, 0, 9]), run([0])
    # the mean over a sample may be summed in another order; 12 steps of rounding
    torch.testing.assert_close(together[1:2], alone, rtol=0, atol=1e-11 if dtype == torch.float64 else 2e-4)


INF, NAN = float("inf"), float("nan")
WRONG = ([1.0], [], [1.0, 2.0, 0.0], [2.0, 1.0, 1.0, 0.0], [1.0, -0.1], [INF, 1.0], [NAN, 0.0], [[1.0, 0.0]])


@pytest.mark.parametrize("name", ["ddim", "unipc"])
@pytest.mark.parametrize("sigmas", WRONG)
def test_a_wrong_grid_is_refused(name, sigmas):
    with pytest.raises(ValueError, match="sigmas"):
        A.SAMPLERS[name](denoise, torch.ones(2, 2), torch.tensor(sigmas), noise=lambda: torch.ones(2, 2))


@pytest.mark.parametrize(("name", "entry"), A.SAMPLERS.items(), ids=A.SAMPLERS)
def test_only_stochastic_samplers_need_noise_and_the_others_repeat(name, entry):
    x, sigmas = 3 * torch.ones(2, 2), torch.tensor([3.0, 1.0, 0.3, 0.0])
    if entry.stochastic:
        with pytest.raises(ValueError, match="noise="):
            entry(denoise, x, sigmas)
    else:
        assert torch.equal(*(entry(denoise, x, sigmas) for _ in range(2)))


def test_half_precision_keeps_its_state_in_float32():
    """A bfloat16 start loses 3 digits once; the 200 steps after it lose none."""
    sigmas = grids.karras(SCHEDULE, 200)
    x = (83 * torch.randn(4, 8, generator=torch.Generator().manual_seed(0))).bfloat16()
    half, full = A.ddim(denoise, x, sigmas), A.ddim(denoise, x.float(), sigmas)
    assert torch.equal(half, full.bfloat16())


def test_more_rules_of_single_samplers():
    with pytest.raises(AudioLDMError, match="adaptive"):
        A.adaptive(denoise, torch.ones(1, 1), torch.tensor([50.0, 0.1]), most=2)
    with pytest.raises(ValueError, match="sigmas"):
        ddim_invert(denoise, torch.ones(1, 1), torch.tensor([0.0, 1.0]))
