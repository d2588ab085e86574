"""``audioldm bench``: the parts add up to the whole, and counting them changes nothing."""

import json

import pytest
import torch

from audioldm.pipeline import timing
from audioldm.pipeline.audioldm import AudioLDM

QUICK = ("--seconds", 0.32, "--steps", 2, "--repeat", 1)


def test_parts_add_up_and_operations_are_those_of_one_run(command, tiny_model, capsys):
    assert command("bench", "-m", tiny_model, "--json", *QUICK) == 0
    result = json.loads(capsys.readouterr().out)
    parts = result["parts"]
    assert sum(part["s"] for part in parts.values()) == pytest.approx(result["s"], rel=1e-6)
    assert (parts["unet"]["calls"], parts["vae"]["calls"], parts["vocoder"]["calls"]) == (2, 1, 1)
    assert parts["unet"]["gflop"] > 0 and 0 < parts["unet"]["of_peak"] < 1
    assert result["real_time_factor"] == pytest.approx(result["s"] / 0.32)
    assert command("bench", "-m", tiny_model, "--mode", "fast", *QUICK) == 0
    printed = capsys.readouterr().out
    assert all(f"\n| {part} " in printed for part in timing.PARTS) and "fast (bfloat16)" in printed
    for words in (("--repeat", 0), ("--steps", 0), ("--mode", "warp")):
        assert command("bench", "-m", tiny_model, *words) == 2


def test_watching_changes_no_byte_and_leaves_the_pipeline_as_it_was(tiny_model):
    pipe = AudioLDM.from_pretrained(tiny_model)
    functions, waves = pipe.engine.functions, []

    def run() -> None:
        waves.append(pipe(["rain"], seeds=[0], seconds=0.32, steps=2))

    run()
    usage = timing.trace(pipe, run, count=True)
    assert pipe.engine.functions is functions
    run()
    assert torch.equal(waves[0], waves[1]) and torch.equal(waves[0], waves[2])
    assert usage["unet"].calls == 2 and min(usage[part].flops for part in timing.CALLS) > 0
    assert usage["rest"].seconds > 0
    assert sum(usage[part].seconds for part in timing.PARTS) == pytest.approx(usage["all"].seconds)
