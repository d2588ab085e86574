"""Losses of students, in worlds whose answers are known in closed form."""

from itertools import pairwise

import pytest
import torch

from audioldm.diffusion import distill
from audioldm.diffusion.prediction import spread
from audioldm.diffusion.samplers import SAMPLERS

LEVELS = torch.tensor([20.0, 6.0, 2.0, 0.7, 0.2, 0.0], dtype=torch.float64)


def fine(count=400):
    """Levels so near each other that Heun's way is the ODE's own."""
    return torch.cat(
        [torch.logspace(1.3, -3, count, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)]
    )


def far(world, x, sigma):
    """Where the ODE ends from x at each row's own level."""
    ratio = world.std**2 / (world.std**2 + spread(sigma, x) ** 2)
    return world.mean + (x - world.mean) * ratio.sqrt()


def test_a_trajectory_is_the_samplers_own(gaussian, normal):
    x = 20 * normal(5, len(gaussian.mean))
    states = distill.trajectory(SAMPLERS["dpmpp_2m"], gaussian.denoise, x, LEVELS)
    assert states.shape == (6, *x.shape) and torch.equal(states[0], x)
    assert torch.equal(states[-1], SAMPLERS["dpmpp_2m"](gaussian.denoise, x, LEVELS))


def to_level(world, end):
    """The denoiser whose one step from any level lands where the ODE is at ``end``: it solves step_to for x0."""

    def answer(x, sigma):
        ratio = ((world.std**2 + end**2) / (world.std**2 + spread(sigma, x) ** 2)).sqrt()
        there = world.mean + (x - world.mean) * ratio
        share = spread(end / sigma, x)
        return (there - share * x) / (1 - share)

    return answer


@pytest.mark.parametrize("end", [0.0, 0.7])
def test_the_only_segment_without_loss_is_the_odes_own_way(gaussian, normal, end):
    x = 20 * normal(64, len(gaussian.mean))
    states = distill.trajectory(SAMPLERS["heun"], gaussian.denoise, x, fine())
    stop = int((fine() - end).abs().argmin())
    level = fine()[stop]
    for step in (0, 100, 170):
        sigma, ends = fine()[step].expand(64), level.expand(64)
        rest = states[step], sigma, states[stop], ends
        exact = distill.segment(to_level(gaussian, level), *rest)
        assert exact.max() < 1e-6
        assert distill.segment(gaussian.denoise, *rest).mean() > 100 * exact.mean()


def test_a_student_of_segments_is_sampled_by_ddim(gaussian, normal):
    """Its steps, one after the other, end where the ODE ends; the denoiser's own do not."""
    x = 20 * normal(64, len(gaussian.mean))

    def student(x, sigma):
        end = LEVELS[(sigma[0] == LEVELS).int().argmax() + 1]
        return to_level(gaussian, end)(x, sigma)

    exact = far(gaussian, x, torch.full((64,), 20.0, dtype=torch.float64))
    torch.testing.assert_close(SAMPLERS["ddim"](student, x, LEVELS), exact, rtol=1e-9, atol=1e-9)
    assert (SAMPLERS["ddim"](gaussian.denoise, x, LEVELS) - exact).abs().max() > 0.05


@pytest.mark.parametrize("end", [0.0, 1.0])
def test_consistency_is_0_for_the_odes_own_way_and_only_its_student_has_a_gradient(gaussian, normal, end):
    x = 6 * normal(32, len(gaussian.mean))
    now, nxt = x.new_full((32,), 6.0), x.new_full((32,), 2.0)
    nxt[::2] = end
    there = gaussian.carried(x, 6.0, end), gaussian.carried(x, 6.0, 2.0)
    x_next = torch.where(spread(nxt == end, x).bool(), *there)
    exact, ends = to_level(gaussian, torch.tensor(end, dtype=torch.float64)), x.new_full((32,), end)
    pairs = (x, now), (x_next, nxt), ends
    assert distill.consistency(exact, exact, *pairs).max() < 1e-12
    assert distill.consistency(gaussian.denoise, exact, *pairs).mean() > 0.01
    mine, other = (torch.ones((), dtype=torch.float64, requires_grad=True) for _ in range(2))
    loss = distill.consistency(
        lambda x, s: mine * gaussian.denoise(x, s), lambda x, s: other * exact(x, s), *pairs
    )
    loss.mean().backward()
    assert mine.grad is not None and other.grad is None


def test_consistency_alone_carries_the_end_up_the_levels(gaussian, normal):
    """One parameter a level, each learned from the level below: the boundary x0(x, 0) = x decides them all."""
    grid = torch.tensor([6.0, 2.0, 0.7, 0.0], dtype=torch.float64)
    x = [6 * normal(512, len(gaussian.mean)) + gaussian.mean]
    for high, low in pairwise(grid):
        x.append(gaussian.carried(x[-1], float(high), float(low)))
    weights = torch.ones(4, len(gaussian.mean), dtype=torch.float64)
    free = weights.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([free], max_iter=50, line_search_fn="strong_wolfe")

    def student(table):
        def answer(x, sigma):
            place = (grid[:, None] == sigma).int().argmax(0)
            return gaussian.mean + table[place] * (x - gaussian.mean)

        return answer

    def closure():
        optimizer.zero_grad()
        loss = sum(
            distill.consistency(
                student(free),
                student(weights),
                (x[i], grid[i].expand(512)),
                (x[i + 1], grid[i + 1].expand(512)),
                torch.zeros(512, dtype=torch.float64),
            ).mean()
            for i in range(3)
        )
        loss.backward()
        return loss

    for _ in range(6):
        optimizer.step(closure)
        weights = free.detach().clone()
    exact = (gaussian.std**2 / (gaussian.std**2 + grid[:3, None] ** 2)).sqrt()
    torch.testing.assert_close(weights[:3], exact, rtol=1e-3, atol=1e-4)


def test_pseudo_huber_is_square_near_0_and_linear_far_off():
    a, zero = torch.tensor([[1e-4], [100.0]], dtype=torch.float64), torch.zeros(2, 1, dtype=torch.float64)
    near, distant = distill.pseudo_huber(a, zero, 0.03).tolist()
    assert near == pytest.approx(1e-8 / 0.06, rel=1e-3) and distant == pytest.approx(100 - 0.03, rel=1e-5)


def test_the_best_relativistic_critic_is_the_log_density_ratio(normal):
    """p = N(1, 1) against q = N(-0.5, 1): log p/q has the slope 1.5; alike, nothing is to be told apart."""
    real, fake = normal(40_000, 1) + 1, normal(40_000, 1) - 0.5
    slope = torch.zeros(1, 1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([slope], max_iter=100)

    def closure():
        optimizer.zero_grad()
        loss = distill.relativistic(lambda z: z @ slope, real, fake).mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    assert slope.item() == pytest.approx(1.5, abs=0.05)
    assert distill.relativistic(lambda z: z @ slope, real, real).mean().item() == pytest.approx(
        0.6931, abs=1e-3
    )
    moved = (fake + 0.2).requires_grad_()
    distill.relativistic(lambda z: z @ slope.detach(), moved, real).mean().backward()
    assert bool((moved.grad < 0).all()), "the student goes towards the real"


def test_rolled_prompts_teach_what_a_prompt_changes(normal):
    """x given c is N(c, 1): of two prompts c, c' the best critic's difference is x (c - c') - (c^2 - c'^2) / 2."""
    c = normal(40_000, 1)
    x, other = c + normal(40_000, 1), c.roll(1, 0)
    weights = torch.zeros(2, 1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=100)

    def critic(c):
        return lambda z: torch.cat([z * c, c * c], 1) @ weights

    def closure():
        optimizer.zero_grad()
        loss = distill.rolled_prompts(critic(c), critic(other), x).mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    assert weights.flatten().tolist() == pytest.approx([1.0, -0.5], abs=0.05)


def test_roughness_is_the_squared_slope(normal):
    slope = torch.tensor([[3.0], [4.0]], dtype=torch.float64)
    noise = normal(100_000, 2)
    rough = distill.roughness(lambda z: z @ slope, normal(100_000, 2), noise)
    assert rough.mean().item() == pytest.approx(25, rel=0.02)
