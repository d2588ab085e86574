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


def test_the_only_jump_without_loss_is_to_the_odes_end(gaussian, normal):
    x = 20 * normal(64, len(gaussian.mean))
    states = distill.trajectory(SAMPLERS["heun"], gaussian.denoise, x, fine())
    for step in (0, 100, 300):
        sigma = fine()[step].expand(64)
        exact = distill.jump(lambda x, s: far(gaussian, x, s), states[step], sigma, states[-1])
        assert exact.max() < 1e-6
        mean = distill.jump(gaussian.denoise, states[step], sigma, states[-1])
        assert step == 300 or mean.mean() > 1e4 * exact.mean()


def test_consistency_is_0_for_the_odes_end_and_only_its_student_has_a_gradient(gaussian, normal):
    x = 6 * normal(32, len(gaussian.mean))
    now, nxt = x.new_full((32,), 6.0), x.new_full((32,), 2.0)
    nxt[::2] = 0
    x_next = torch.where(
        spread(nxt == 0, x).bool(), gaussian.carried(x, 6.0, 0.0), gaussian.carried(x, 6.0, 2.0)
    )

    def exact(x, sigma):
        return far(gaussian, x, sigma)

    assert distill.consistency(exact, exact, x, now, x_next, nxt).max() < 1e-12
    assert distill.consistency(gaussian.denoise, exact, x, now, x_next, nxt).mean() > 0.01
    mine, other = (torch.ones((), dtype=torch.float64, requires_grad=True) for _ in range(2))
    loss = distill.consistency(
        lambda x, s: mine * gaussian.denoise(x, s), lambda x, s: other * exact(x, s), x, now, x_next, nxt
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
                student(free), student(weights), x[i], grid[i].expand(512), x[i + 1], grid[i + 1].expand(512)
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
