import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from audioldm.diffusion import prediction as P
from audioldm.diffusion import schedule as S


def known(shape, schedule, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x0, eps = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    t = torch.randint(1, 999, (shape[0],), generator=generator)
    alpha, sigma = schedule.coefficients(t)
    return x0, eps, P.spread(alpha, x0) * x0 + P.spread(sigma, x0) * eps, {"alpha": alpha, "sigma": sigma}


@given(
    source=st.sampled_from(P.PREDICTIONS),
    to=st.sampled_from(P.PREDICTIONS),
    name=st.sampled_from(list(S.SCHEDULES)),
    shape=st.sampled_from([(1, 1), (4, 4), (4, 4, 4), (3, 2, 5, 3), (2, 8, 4, 2)]),
    seed=st.integers(0, 99),
)
@settings(max_examples=120, deadline=None)
def test_every_prediction_says_the_same_as_every_other(source, to, name, shape, seed):
    x0, eps, x_t, ab = known(shape, S.SCHEDULES[name](), seed)
    said, wanted = (P.express(x0, eps, prediction=kind, **ab) for kind in (source, to))
    there = P.convert(said, x_t, source=source, to=to, **ab)
    back = P.convert(there, x_t, source=to, to=source, **ab)
    # float64; dividing by alpha or sigma (both above 1e-4) loses at most 8 digits, and score multiplies by up to 1e4
    torch.testing.assert_close(there, wanted, rtol=1e-7, atol=1e-6)
    torch.testing.assert_close(back, said, rtol=1e-6, atol=1e-5)


def test_numbers_that_are_not_one_per_sample_are_refused():
    with pytest.raises(ValueError, match="one per sample"):
        P.spread(torch.ones(4), torch.ones(3, 4))


def test_an_unknown_prediction_is_refused():
    with pytest.raises(ValueError, match="prediction='noise'"):
        P.as_denoiser(lambda x, t: x, S.audioldm(), prediction="noise")


@pytest.mark.parametrize("name", ["audioldm", "cosine", "flow"])
@pytest.mark.parametrize("prediction", P.PREDICTIONS)
def test_an_exact_net_gives_the_exact_denoiser(prediction, name, gaussian, normal):
    schedule = S.SCHEDULES[name]()

    def net(x_t, t):
        alpha, sigma = schedule.coefficients(t)
        level = sigma / alpha
        x = x_t / P.spread(alpha, x_t)
        x0 = gaussian.denoise(x, level)
        return P.express(x0, (x - x0) / P.spread(level, x), alpha=alpha, sigma=sigma, prediction=prediction)

    sigma = torch.tensor([0.1, 1.0, 7.0, 60.0], dtype=torch.float64)
    x = normal(4, 3) * sigma[:, None]
    out = P.as_denoiser(net, schedule, prediction=prediction)(x, sigma)
    # t is snapped to a whole number within 1e-3, which moves sigma by up to 1e-5
    torch.testing.assert_close(out, gaussian.denoise(x, sigma), rtol=1e-4, atol=1e-4)


def test_the_net_sees_whole_times_from_float32_sigmas_and_its_own_dtype():
    schedule, seen = S.audioldm(), []

    def net(x_t, t):
        seen.append((x_t.dtype, t))
        return torch.zeros_like(x_t)

    t = torch.tensor([1, 500, 998])
    out = P.as_denoiser(net, schedule, dtype=torch.bfloat16)(torch.ones(3, 2), schedule.sigma_at(t).float())
    assert seen[0][0] == torch.bfloat16
    assert seen[0][1].tolist() == [1, 500, 998]
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, torch.ones(3, 2))  # eps = 0: x0 is x
