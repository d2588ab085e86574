"""The ablation's variants are what the recipe understands, and are called as they were trained."""

from types import SimpleNamespace

import pytest
import torch

from audioldm import recipes
from audioldm.diffusion.prediction import express, spread
from audioldm.diffusion.schedule import FlowPath, audioldm_zero_snr
from benchmarks.ablation import SAME, SMALL, VARIANTS, denoiser, path_of, table


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_is_the_recipe_but_for_its_own_change(name: str):
    variant, folders = VARIANTS[name], ("data.folder=a", "data.val_folder=b")
    cfg = recipes.load("embedded/ldm", [*SMALL, *folders, *variant.overrides])
    base = recipes.load("embedded/ldm", [*SMALL, *folders])
    assert cfg.task.prediction == variant.prediction
    assert cfg.task.schedule["_target_"].endswith(type(path_of(variant.schedule)).__name__) or not isinstance(
        path_of(variant.schedule), FlowPath
    )
    changed = [k for k in cfg.task if cfg.task[k] != base.task[k]]
    changed += [k for k in cfg.trainer if cfg.trainer[k] != base.trainer[k]]
    changed += ["seed"] * (cfg.seed != base.seed) + ["cache"] * (variant.cache != "recipe")
    least = 2 if variant.prediction in ("eps", "flow") else 1  # the schedule goes with them
    assert len(set(changed)) == (0 if name == "recipe" else least)


@pytest.mark.parametrize(
    "name", ["recipe", "flow instead of v", "eps instead of v, without zero terminal SNR"]
)
def test_nets_that_say_different_things_are_judged_alike(name: str):
    """A net that knows z gives z back at every level, whatever it predicts."""
    variant, rng = VARIANTS[name], torch.Generator().manual_seed(0)
    z, noise = torch.randn(2, 3, 4, 4, generator=rng), torch.randn(2, 3, 4, 4, generator=rng)
    path = path_of(variant.schedule)

    class Net(torch.nn.Module):
        class config:  # noqa: N801 - as diffusers names it
            class_embed_type, cross_attention_dim, block_out_channels = "simple_projection", (4,), (4,)

        def forward(self, x, t, **told):
            alpha, sigma = path.coefficients(t)
            said = express(z, noise, alpha=alpha, sigma=sigma, prediction=variant.prediction)
            return SimpleNamespace(sample=said.float())

    for level in (0.1, 1.0, 10.0):
        sigma = torch.full((2,), level, dtype=torch.float64)
        found = denoiser(Net(), variant, torch.zeros(2, 5))(z + spread(sigma, z) * noise, sigma)
        assert torch.allclose(found, z, atol=1e-4 * (1 + level))  # float32 times sigma


def test_the_table_calls_a_difference_one_only_outside_the_seeds_range():
    rows = {
        name: {"batches": 1, "cpu_s": 1.0, "eps": value, "x0": 1.0, "x0_min_snr": value}
        for name, value in zip((*SAME, "a", "b", "c"), (0.10, 0.12, 0.11, 0.115, 0.09, 0.13), strict=True)
    }
    lines = {line.split(" | ")[0]: line for line in table({"rows": rows, "clips": 40}).splitlines()}
    assert "better" not in lines["| a"] and "worse" not in lines["| a"]
    assert "0.0900 better" in lines["| b"] and "0.1300 worse" in lines["| c"]
    assert "not run" in lines["| a"]


def test_the_recipe_itself_ends_at_zero_snr():
    assert path_of(VARIANTS["recipe"].schedule).sigmas[-1] == audioldm_zero_snr().sigmas[-1]
