import pytest
import torch

from audioldm.diffusion import objective as O
from audioldm.diffusion import prediction as P
from audioldm.diffusion import schedule as S

SCHEDULE = S.audioldm()


@pytest.mark.parametrize("weighting", ["uniform", "min_snr", "p2", "edm"])
@pytest.mark.parametrize("prediction", P.PREDICTIONS)
@pytest.mark.parametrize("schedule", [SCHEDULE, S.FlowPath()], ids=["vp", "flow"])
def test_a_net_that_knows_the_answer_has_no_loss(schedule, prediction, weighting, normal, generator):
    z, noise = normal(4, 2, 4), normal(4, 2, 4)
    t = O.draw_t(4, schedule, generator=generator)
    answer = O.target(z, t, noise, schedule, prediction)
    assert O.loss(lambda x, t: answer, z, t, noise, schedule, prediction, weighting).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("weighting", ["min_snr", "p2", "edm"])
@pytest.mark.parametrize("prediction", P.PREDICTIONS)
def test_a_weighting_weighs_the_same_x0_error_whatever_is_predicted(prediction, weighting, normal):
    z, noise, error = normal(4, 6), normal(4, 6), 0.1 * normal(4, 6)
    t = torch.tensor([3, 200, 600, 990])
    alpha, sigma = SCHEDULE.coefficients(t)

    def net(x_t, t):
        wrong = z + error
        eps = (x_t - P.spread(alpha, x_t) * wrong) / P.spread(sigma, x_t)
        return P.express(wrong, eps, alpha=alpha, sigma=sigma, prediction=prediction)

    got = O.loss(net, z, t, noise, SCHEDULE, prediction, weighting)
    wanted = O.WEIGHTINGS[weighting](SCHEDULE.snr(t)) * error.square().mean(1)
    torch.testing.assert_close(got, wanted, rtol=1e-6, atol=1e-12)  # cancellation at SNR 1e-4


def test_min_snr_has_the_published_forms():
    t = torch.tensor([0, 300, 700, 999])
    snr = SCHEDULE.snr(t)
    forms = {"x0": snr.clamp(max=5), "eps": snr.clamp(max=5) / snr, "v": snr.clamp(max=5) / (snr + 1)}
    for prediction, form in forms.items():
        got = O.weight(t, SCHEDULE, prediction=prediction, weighting="min_snr")
        torch.testing.assert_close(got, form, rtol=1e-9, atol=0)


def test_edm_with_unit_data_is_the_plain_v_loss():
    t = torch.arange(1000)
    got = O.weight(t, SCHEDULE, prediction="v", weighting="edm")
    torch.testing.assert_close(got, torch.ones(1000).double(), rtol=1e-9, atol=0)


def test_p2_has_the_published_form_for_eps():
    t = torch.tensor([0, 500, 999])
    got = O.weight(t, SCHEDULE, prediction="eps", weighting="p2")
    torch.testing.assert_close(got, 1 / (1 + SCHEDULE.snr(t)), rtol=1e-9, atol=0)


@pytest.mark.parametrize("prediction", ["eps", "v", "x0"])
@pytest.mark.parametrize("weighting", ["uniform", "min_snr", "p2", "edm"])
def test_zero_terminal_snr_has_finite_weights(prediction, weighting):
    schedule = S.zero_terminal_snr(SCHEDULE)
    assert O.weight(torch.arange(1000), schedule, prediction=prediction, weighting=weighting).isfinite().all()


def test_the_loss_is_per_sample_and_float32_stays_float32():
    z = torch.zeros(3, 2, 3)
    noise = torch.ones(3, 2, 3)
    out = O.loss(
        lambda x, t: t.float().reshape(-1, 1, 1).expand_as(x), z, torch.tensor([0, 1, 3]), noise, SCHEDULE
    )
    assert out.tolist() == [1, 0, 4]
    assert out.dtype == torch.float32


def test_draws_cover_their_range_as_they_say():
    count, seeded = 20_000, torch.Generator().manual_seed(1)
    uniform = O.draw_t(count, SCHEDULE, generator=seeded).double()
    assert uniform.min() >= 0
    assert uniform.max() <= 999
    assert abs(uniform.mean() - 499.5) < 3 * 1000 / (12 * count) ** 0.5  # 3 sigma of a uniform's mean
    logit = O.unit_draw(count, "logit_normal", generator=seeded)
    inside = ((logit > 0.25) & (logit < 0.75)).double().mean()
    wanted = 2 * torch.distributions.Normal(0.0, 1.0).cdf(torch.tensor(3.0).log()) - 1
    assert abs(inside - wanted) < 3 * (wanted * (1 - wanted) / count) ** 0.5
    even = O.unit_draw(8, "low_discrepancy", generator=seeded).sort().values
    torch.testing.assert_close(even.diff(), torch.full((7,), 1 / 8).double())
    flow = O.draw_t(count, S.FlowPath(), generator=seeded)
    assert flow.is_floating_point()
    assert 0 < flow.min() < flow.max() <= 1000
    with pytest.raises(ValueError, match="draw='half'"):
        O.unit_draw(2, "half")


def test_loss_by_bin():
    by_bin = O.loss_by_bin(torch.tensor([1.0, 3.0, 5.0]), torch.tensor([0, 99, 999]), SCHEDULE)
    assert by_bin[0] == 2
    assert by_bin[9] == 5
    assert by_bin[1:9].isnan().all()
    flow = O.loss_by_bin(torch.tensor([7.0]), torch.tensor([1000.0]), S.FlowPath())
    assert flow[9] == 7


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="weighting='snr'"):
        O.weight(torch.tensor([1]), SCHEDULE, weighting="snr")
    with pytest.raises(ValueError, match="prediction='z'"):
        O.error_ratio(torch.ones(1), torch.ones(1), "z")


def test_the_best_net_beats_its_neighbours(gaussian, normal):
    """The minimiser of the eps loss is (x - E[x0 | x]) / sigma: scaling it either way costs."""
    count = 4000
    z = gaussian.mean + gaussian.std * normal(count, 3)
    noise, t = normal(count, 3), torch.full((count,), 400)
    alpha, sigma = SCHEDULE.coefficients(t)

    def net(x_t, t, factor=1.0):
        x = x_t / alpha[:, None]
        return factor * (x - gaussian.denoise(x, sigma / alpha)) / (sigma / alpha)[:, None]

    best, less, more = (
        O.loss(lambda x, t, f=f: net(x, t, f), z, t, noise, SCHEDULE).mean() for f in (1.0, 0.9, 1.1)
    )
    assert best < less
    assert best < more
