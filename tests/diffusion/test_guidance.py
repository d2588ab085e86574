from itertools import pairwise

import pytest
import torch

from audioldm.diffusion import guidance as G
from audioldm.diffusion import samplers as A
from audioldm.diffusion.prediction import spread


def counted(denoise):
    calls = []

    def call(x, sigma):
        calls.append(sigma)
        return denoise(x, sigma)

    return call, calls


def cond(x, sigma):
    return torch.tanh(x) + 0.5


def uncond(x, sigma):
    return 0.5 * torch.tanh(x)


SIGMAS = torch.tensor([10.0, 5.0, 2.0, 0.7, 0.2, 0.0], dtype=torch.float64)
WITH_SCALE = ["classifier_free", "negative", "autoguidance", "rescale", "apg", "cfg_zero_star"]


@pytest.mark.parametrize("name", WITH_SCALE)
def test_scale_1_is_cond_and_calls_uncond_zero_times(name, normal):
    free, calls = counted(uncond)
    guided = G.GUIDANCE[name](G.Pair(cond, free), 1)
    x = 10 * normal(3, 4)
    out = A.ddim(guided, x, SIGMAS)
    assert calls == []
    assert torch.equal(out, A.ddim(cond, x, SIGMAS))


def test_compose_of_one_is_classifier_free_and_weights_add(normal):
    x, sigma = normal(2, 3), torch.ones(2).double()
    one = G.compose(G.Pair(cond, uncond), 3.0, [])
    torch.testing.assert_close(one(x, sigma), G.classifier_free(G.Pair(cond, uncond), 3.0)(x, sigma))
    both = G.compose(G.Pair(cond, uncond), 3.0, [(cond, -2.0)])
    torch.testing.assert_close(both(x, sigma), cond(x, sigma))


def test_rescale_brings_the_spread_back_to_conds(normal):
    x, sigma = normal(3, 50), torch.ones(3).double()
    full = G.rescale(G.Pair(cond, uncond), 7.0, phi=1.0)(x, sigma)
    torch.testing.assert_close(full.std(1), cond(x, sigma).std(1))
    none = G.rescale(G.Pair(cond, uncond), 7.0, phi=0.0)(x, sigma)
    torch.testing.assert_close(none, G.classifier_free(G.Pair(cond, uncond), 7.0)(x, sigma))


def test_interval_guides_only_inside(normal):
    free, calls = counted(uncond)
    guided = G.interval(G.classifier_free(G.Pair(cond, free), 4.0), cond, low=0.5, high=3.0)
    A.ddim(guided, 10 * normal(2, 3), SIGMAS)
    assert [float(sigma[0]) for sigma in calls] == [2.0, 0.7]


def test_interval_where_samples_have_different_sigmas(normal):
    x, sigma = normal(3, 3), torch.tensor([0.1, 1.0, 9.0]).double()
    out = G.interval(G.classifier_free(G.Pair(cond, uncond), 4.0), cond, low=0.5, high=3.0)(x, sigma)
    torch.testing.assert_close(out[[0, 2]], cond(x, sigma)[[0, 2]])
    torch.testing.assert_close(out[1], G.classifier_free(G.Pair(cond, uncond), 4.0)(x, sigma)[1])


def test_apg(normal):
    x, sigma = normal(3, 20), torch.ones(3).double()
    plain = G.classifier_free(G.Pair(cond, uncond), 5.0)(x, sigma)
    torch.testing.assert_close(G.apg(G.Pair(cond, uncond), 5.0, eta=1.0)(x, sigma), plain)
    with_text = cond(x, sigma)
    move = G.apg(G.Pair(cond, uncond), 5.0)(x, sigma) - with_text
    assert (move * with_text).sum(1).abs().max() < 1e-12  # orthogonal, float64
    short = G.apg(G.Pair(cond, uncond), 5.0, eta=1.0, radius=0.1)(x, sigma) - with_text
    torch.testing.assert_close(short.norm(dim=1), torch.full((3,), 4 * 0.1).double())


def test_cfg_plus_plus_is_its_own_loop(normal):
    """x_next = x0_guided + next eps_uncond, written out."""
    x = 10 * normal(2, 3)
    got = A.ddim(G.cfg_plus_plus(G.Pair(cond, uncond), 0.6, sigmas=SIGMAS), x, SIGMAS)
    for now, nxt in pairwise(SIGMAS):
        base = uncond(x, now)
        x = base + 0.6 * (cond(x, now) - base) + nxt * (x - base) / now
    torch.testing.assert_close(got, x)


def test_cfg_zero_star(normal):
    x, sigma = normal(3, 6), torch.tensor([0.5, 1.0, 4.0]).double()
    u = (sigma / (1 + sigma))[:, None]
    x_u = x / (1 + sigma[:, None])
    slow = G.cfg_zero_star(G.Pair(cond, lambda x, s: x_u - 0.3 * (x_u - cond(x, s))), 6.0)
    # an uncond velocity that is a multiple of cond's is fitted away
    torch.testing.assert_close(slow(x, sigma), cond(x, sigma))
    still = G.cfg_zero_star(G.Pair(cond, uncond), 6.0, zero_above=2.0)(x, sigma)
    torch.testing.assert_close(still[2], x_u[2])
    fast, base = ((x_u - net(x, sigma)) / u for net in (cond, uncond))
    fit = (fast * base).sum(1, keepdim=True) / base.square().sum(1, keepdim=True) * base
    torch.testing.assert_close(still[:2], (x_u - u * (fit + 6 * (fast - fit)))[:2])


def test_dynamic_threshold(normal):
    big = torch.cat([10 * normal(1, 1000), 0.1 * normal(1, 1000)])
    out = G.dynamic_threshold(lambda x, s: big)(big, torch.ones(2))
    assert out.abs().max() <= 1
    assert torch.equal(out[1], big[1])
    assert (out[0].abs() == 1).sum() >= 5  # half a percent of 1000


def test_classifier_guidance_is_the_analytic_posterior(normal):
    """Prior: half N(a, s^2), half N(b, s^2); guided by the true classifier it denoises N(a, s^2)."""
    a, b, std = torch.tensor([2.0, -1.0]).double(), torch.tensor([-1.0, 1.5]).double(), 0.7

    def log_odds(x, sigma):
        variance = std**2 + spread(sigma, x) ** 2
        return torch.stack([-((x - m).square() / (2 * variance)).sum(1) for m in (a, b)], 1).log_softmax(1)

    def of(middle, x, sigma):
        return middle + (x - middle) * std**2 / (std**2 + spread(sigma, x) ** 2)

    def both(x, sigma):
        share = log_odds(x, sigma).exp()
        return share[:, :1] * of(a, x, sigma) + share[:, 1:] * of(b, x, sigma)

    guided = G.classifier(both, lambda x, sigma: log_odds(x, sigma)[:, 0])
    sigma = torch.tensor([0.05, 0.5, 3.0, 30.0]).double()
    x = normal(4, 2) * (1 + sigma[:, None])
    torch.testing.assert_close(guided(x, sigma), of(a, x, sigma), rtol=1e-10, atol=1e-10)
    # and as a whole: samples of the mixture's prior, guided, are samples of N(a, s^2)
    start = 20 * normal(4000, 2)
    levels = torch.cat(
        [torch.linspace(20 ** (1 / 7), 0.02 ** (1 / 7), 40).double() ** 7, torch.zeros(1).double()]
    )
    out = A.heun(guided, start, levels)
    assert (
        (out.mean(0) - a).abs() < 3 * std / 4000**0.5 + std * a.abs().max() / 20
    ).all()  # start lacks a / 20
    assert ((out.std(0) / std - 1).abs() < 3 / (2 * 4000) ** 0.5 + 0.01).all()


def test_reward_moves_by_the_covariance_times_the_gradient(gaussian, normal):
    """sigma^2 d x0 / d x is Cov[x0 | x]: on a Gaussian std^2 sigma^2 / (std^2 + sigma^2)."""
    goal = torch.tensor([0.0, 1.0, 2.0]).double()
    value = lambda x0: -(x0 - goal).square().sum(1) / 2  # noqa: E731
    x, sigma = normal(4, 3), torch.tensor([0.1, 1.0, 5.0, 20.0]).double()
    x0 = gaussian.denoise(x, sigma)
    variance = gaussian.std**2 * sigma[:, None] ** 2 / (gaussian.std**2 + sigma[:, None] ** 2)
    got = G.reward(gaussian.denoise, value, 0.5)(x, sigma)
    torch.testing.assert_close(got, x0 + 0.5 * variance * (goal - x0))
    cut = G.reward(gaussian.denoise, value, 50.0, limit=0.01)(x, sigma)
    assert ((cut - x0).square().mean(1).sqrt() < 0.01 + 1e-12).all()


def test_guidance_leaves_its_inputs_alone(normal):
    x, sigma = normal(2, 5), torch.ones(2).double()
    before = x.clone()
    for guided in (
        G.classifier(cond, lambda x, s: x.sum(1)),
        G.reward(cond, lambda x0: x0.sum(1)),
        G.dynamic_threshold(cond),
        G.apg(G.Pair(cond, uncond), 3.0),
        G.rescale(G.Pair(cond, uncond), 3.0),
        G.cfg_zero_star(G.Pair(cond, uncond), 3.0),
    ):
        assert not guided(x, sigma).requires_grad
    assert torch.equal(x, before)
    assert not x.requires_grad
