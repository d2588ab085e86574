import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from audioldm.diffusion import grids as G
from audioldm.diffusion import schedule as S
from audioldm.errors import AudioLDMError

SCHEDULES = {name: make() for name, make in S.SCHEDULES.items()} | {"zero": S.zero_terminal_snr(S.audioldm())}


@given(
    grid=st.sampled_from(list(G.GRIDS)),
    schedule=st.sampled_from(list(SCHEDULES)),
    steps=st.one_of(st.integers(1, 60), st.sampled_from([250, 333, 600, 999, 1000])),
)
@settings(max_examples=120, deadline=None)
def test_exactly_the_steps_asked_for_falling_to_zero(grid, schedule, steps):
    sigmas = G.GRIDS[grid](SCHEDULES[schedule], steps)
    assert sigmas.shape == (steps + 1,)
    assert sigmas.dtype == torch.float64
    assert (sigmas.diff() < 0).all()
    if grid == "published" and steps < SCHEDULES[schedule].length:
        assert sigmas[-1] == SCHEDULES[schedule].sigmas[0]
    else:
        assert sigmas[-1] == 0
    assert sigmas[0] <= SCHEDULES[schedule].sigmas[-1] * (1 + 1e-12)


@pytest.mark.parametrize("grid", [name for name in G.GRIDS if name not in ("leading", "published")])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_all_but_the_leading_ones_start_at_the_top_even_with_one_step(grid, schedule):
    for steps in (1, 2, 7):
        top = G.GRIDS[grid](SCHEDULES[schedule], steps)[0]
        torch.testing.assert_close(top, SCHEDULES[schedule].sigmas[-1], rtol=1e-12, atol=0)


@pytest.mark.parametrize("steps", [0, -3])
@pytest.mark.parametrize("grid", G.GRIDS)
def test_no_steps_is_a_users_mistake(grid, steps):
    with pytest.raises(AudioLDMError, match=f"steps={steps}"):
        G.GRIDS[grid](S.audioldm(), steps)


@pytest.mark.parametrize("grid", ["leading", "published", "trailing", "linspace", "snr"])
def test_more_steps_than_times_is_a_users_mistake(grid):
    with pytest.raises(AudioLDMError, match="1001"):
        G.GRIDS[grid](S.audioldm(), 1001)
    assert len(G.exponential(S.audioldm(), 1001)) == 1002


def test_snr_grid_uses_whole_times_and_follows_the_exponential_one():
    schedule = S.audioldm()
    whole, real = G.snr(schedule, 20)[:-1], G.exponential(schedule, 20)[:-1]
    t = schedule.t_at(whole)
    assert torch.equal(t, t.round())
    assert (whole[:12].log() - real[:12].log()).abs().max() < 0.02  # half a trained step of log sigma


def test_aligned_at_ten_steps_is_the_stretched_table():
    schedule = S.audioldm()
    got = G.aligned(schedule, 10)[:-1].log()
    table = torch.tensor(G.ALIGNED, dtype=torch.float64).log()
    low, high = schedule.sigmas[[0, -1]].log()
    torch.testing.assert_close(got, low + (table[:-1] - table[-1]) / (table[0] - table[-1]) * (high - low))


@pytest.mark.parity
@pytest.mark.parametrize("steps", [1, 3, 20, 30, 200, 600])
def test_equal_to_diffusers(steps):
    from diffusers import DDIMScheduler, EulerDiscreteScheduler

    schedule = S.audioldm()
    numbers = {"beta_start": 0.0015, "beta_end": 0.0195, "beta_schedule": "scaled_linear"}
    for spacing in ("leading", "trailing", "linspace"):
        if (spacing == "leading" and 1000 % steps) or (spacing == "linspace" and steps == 1):
            continue  # diffusers drops the noisiest times, or starts at t = 0
        theirs = DDIMScheduler(**numbers, timestep_spacing=spacing, steps_offset=1)
        theirs.set_timesteps(steps)
        if spacing == "leading" and steps == 1:
            continue
        t = schedule.t_at(G.GRIDS[spacing](schedule, steps)[:-1])
        assert t.tolist() == theirs.timesteps.tolist()
    for option, name in (("use_karras_sigmas", "karras"), ("use_exponential_sigmas", "exponential")):
        if steps == 1:
            continue
        theirs = EulerDiscreteScheduler(**numbers, timestep_spacing="linspace", **{option: True})
        theirs.set_timesteps(steps)
        # theirs is float32 throughout
        torch.testing.assert_close(
            G.GRIDS[name](schedule, steps), theirs.sigmas.double(), rtol=2e-5, atol=1e-6
        )
