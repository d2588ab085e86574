import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from audioldm.diffusion import schedule as S

VP = [name for name in S.SCHEDULES if name != "flow"]


def test_audioldm_golden_numbers_to_all_digits():
    bar = S.audioldm().alphas_cumprod.tolist()
    assert bar[0] == pytest.approx(0.9985, rel=1e-14)
    assert bar[499] == pytest.approx(0.11584449081, rel=1e-10)
    assert bar[999] == pytest.approx(0.000142303975, rel=1e-8)


@pytest.mark.parametrize("name", VP)
def test_vp_keeps_the_variance_and_the_snr_falls(name):
    schedule = S.SCHEDULES[name]()
    t = torch.arange(schedule.length)
    alpha, sigma = schedule.coefficients(t)
    # the sum of two roundings
    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones(1000).double(), rtol=0, atol=1e-15)
    assert (schedule.snr(t).diff() < 0).all()
    torch.testing.assert_close((1 - schedule.betas).cumprod(0), schedule.alphas_cumprod, rtol=1e-11, atol=0)


@pytest.mark.parametrize("name", list(S.SCHEDULES))
def test_t_and_sigma_both_ways(name):
    schedule = S.SCHEDULES[name]()
    t = torch.linspace(1, schedule.length - 1, 777, dtype=torch.float64)
    # interpolation in float64; whole numbers snap within 1e-3
    torch.testing.assert_close(schedule.t_at(schedule.sigma_at(t)), t, rtol=0, atol=1e-3)
    whole = torch.arange(1, schedule.length)
    assert (
        torch.equal(schedule.t_at(schedule.sigma_at(whole).float()).float(), whole.float()) or name == "flow"
    )
    level = torch.logspace(-1, 1.5, 50, dtype=torch.float64)
    # a snap of 1e-3 t moves log sigma by at most 1e-3 of its change per t, below 0.1 here
    torch.testing.assert_close(schedule.sigma_at(schedule.t_at(level)), level, rtol=1e-4, atol=0)


@given(t=st.floats(0, 999), name=st.sampled_from(list(S.SCHEDULES)))
@settings(max_examples=60, deadline=None)
def test_coefficients_agree_with_sigma_at_any_real_time(t, name):
    schedule = S.SCHEDULES[name]()
    at = torch.tensor([t], dtype=torch.float64)
    alpha, sigma = schedule.coefficients(at)
    torch.testing.assert_close(sigma / alpha, schedule.sigma_at(at), rtol=1e-9, atol=0)
    torch.testing.assert_close(schedule.alpha_of(schedule.sigma_at(at)), alpha, rtol=1e-9, atol=0)


def test_zero_terminal_snr_keeps_the_first_and_ends_in_pure_noise():
    before, after = S.audioldm(), S.zero_terminal_snr(S.audioldm())
    assert after.alphas_cumprod[-1] == 0
    assert after.alphas_cumprod[0] == pytest.approx(before.alphas_cumprod[0].item(), rel=1e-14)
    assert after.sigmas[-1] == S.HIGHEST
    assert after.t_at(after.sigmas[-1:]).item() == 999
    assert after.snr(torch.tensor(999)) == 0


def test_sigmoid_against_its_formula_at_the_middle():
    # symmetric ends: half of the signal power is left in the middle
    assert S.sigmoid().alphas_cumprod[499] == pytest.approx(0.5, abs=1e-9)


def test_flow_path_and_shift():
    path = S.FlowPath(shift=3.0)
    u = torch.tensor([0.0, 250.0, 1000.0])
    assert path.shifted(u).tolist() == pytest.approx([0, 500, 1000])  # 3/4 / (1 + 2/4) = 1/2
    assert path.sigma_at(torch.tensor(500.0)) == 1
    assert path.sigmas[-1] == S.HIGHEST
    assert path.t_at(path.sigmas[-1:]).item() == 1000


@pytest.mark.parity
def test_betas_and_rescaling_equal_diffusers():
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler, rescale_zero_terminal_snr

    for name, theirs in (
        ("linear", "linear"),
        ("audioldm", "scaled_linear"),
        ("cosine", "squaredcos_cap_v2"),
    ):
        low, high = (1e-4, 0.02) if name == "linear" else (0.0015, 0.0195)
        other = DDIMScheduler(beta_schedule=theirs, beta_start=low, beta_end=high)
        # theirs is float32 and cumulated over 1000 factors
        torch.testing.assert_close(
            S.SCHEDULES[name]().alphas_cumprod,
            other.alphas_cumprod.double(),
            rtol=1e-3 if name == "cosine" else 3e-5,
            atol=0,
        )
    theirs = rescale_zero_terminal_snr(S.audioldm().betas)
    ours = S.zero_terminal_snr(S.audioldm())
    torch.testing.assert_close((1 - theirs).cumprod(0), ours.alphas_cumprod, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize(
    "bad",
    [
        torch.tensor([0.5, 0.9]).double(),
        torch.tensor([0.9, 0.5]),
        torch.tensor([1.0, 0.5]).double(),
        torch.ones(2, 2).double(),
    ],
)
def test_a_wrong_table_is_refused(bad):
    with pytest.raises(ValueError, match="alphas_cumprod"):
        S.NoiseSchedule(bad)
