"""The judge of docs/tricks.md: what its rows say of sounds whose levels, starts and spectra are known."""

import json

import pytest
import soundfile
import torch

from recipes.finetune.judge import main, sound_of

RATE = 16000


def tone(hertz: float, seconds: float = 1.28) -> torch.Tensor:
    return 0.5 * torch.sin(2 * torch.pi * hertz * torch.arange(int(seconds * RATE)) / RATE)


def of(wave: torch.Tensor) -> dict[str, float]:
    return sound_of(torch.stack([wave, wave]), RATE)


def test_silence_treble_starts_and_flat_tops_are_told():
    low, high = tone(440), tone(6000)
    late = low * (torch.arange(len(low)) > RATE // 2)
    assert sound_of(torch.stack([low, torch.zeros_like(low)]), RATE)["silent"] == 0.5
    assert (
        sound_of(low[None], RATE)["above 4 kHz, dB"]
        < -30
        < -1
        < sound_of(high[None], RATE)["above 4 kHz, dB"]
    )
    begin = {name: sound_of(wave[None], RATE) for name, wave in (("low", low), ("late", late))}
    assert begin["low"]["begin above -20 dB"] == 1 and begin["late"]["begin above -20 dB"] == 0
    assert begin["late"]["seconds above -40 dB"] == pytest.approx(0.78, abs=0.06)
    flat = sound_of((4 * low).clamp(-0.5, 0.5)[None], RATE)["flat tops"]
    assert flat > 0.7 > 0.2 > sound_of(low[None], RATE)["flat tops"]


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
