"""The curve counts what the net is asked, and its settings differ in what they save."""

from pathlib import Path

import torch

from audioldm.pipeline.audioldm import AudioLDM
from audioldm.pipeline.guidance import GuidanceConfig
from benchmarks.curve import Reusing, draw, interval, run

FEW = {"steps": 4, "guidance": 3.0}


def test_an_interval_and_a_reused_answer_cost_less_and_plain_guidance_two_rows_a_call(tiny_model: Path):
    pipe = AudioLDM.from_pretrained(tiny_model)
    words = ["rain", "noise", "wind"]
    made = {
        name: run(pipe, words, batch=2, seconds=1.28, guidance_config=guide, **FEW)
        for name, guide in {
            "plain": None,
            "interval": GuidanceConfig(interval=(0.3, 3.0)),
            "reused": Reusing(),
        }.items()
    }
    calls, cost = made["plain"][1:3]
    assert calls == cost == 4  # two batches, and four calls each: one clip has four
    assert made["interval"][2] < cost
    assert made["reused"][2] == 3  # four rows with the words, two without, over two
    assert all(waves.shape == (3, 20480) for waves, *_ in made.values())
    assert not torch.equal(made["plain"][0], made["reused"][0])


def test_reusing_at_every_call_a_gap_that_does_not_change_is_plain_guidance():
    class Net:
        def denoiser(self, condition: float):
            return lambda x, sigma: x * 0 + condition

    guided = Reusing().steer(Net(), 2.0, 1.0, 3.0, torch.ones(3))
    assert [float(guided(torch.zeros(1), torch.ones(1))) for _ in range(4)] == [4.0] * 4


def test_the_chart_is_drawn_and_the_interval_holds_the_middle(tmp_path: Path):
    rows = [{"name": f"DDIM, {n} steps", "cost": n, "fd": 1.0 / n, "clap": 0.1 * n} for n in (100, 10)]
    draw(rows, tmp_path / "curve.png")
    assert (tmp_path / "curve.png").stat().st_size > 5000
    assert interval([float(i) for i in range(100)]) == [2.0, 97.0]
