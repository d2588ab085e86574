"""The measures of edits on clips whose answers are known: each number is what it says."""

import json

import numpy as np
import pytest
import soundfile
import torch
from torch import Generator

from audioldm.datasets import manifest
from audioldm.datasets.manifest import Row
from audioldm.evaluation.embedders.yamnet import YamNet
from audioldm.pipeline.audioldm import AudioLDM
from recipes.embedded.esc10 import PROMPTS
from recipes.embedded.release_checks import edits


@pytest.fixture(scope="module")
def pipe(tiny_model):
    return AudioLDM.from_pretrained(tiny_model)


@pytest.fixture(scope="module")
def clips(pipe):
    noise = 0.1 * torch.randn(2, pipe.spec.samples(2.56), generator=Generator().manual_seed(9))
    return [edits.RealClip(label, wave) for label, wave in zip(PROMPTS, noise, strict=False)]


def by_method(rows):
    return {row["method"]: row for row in rows}


def test_super_resolution_has_its_baselines(pipe, clips):
    count = []
    rows = by_method(edits.super_resolution(pipe, clips, 2000, lambda: count.append(1), steps=2))
    assert len(count) == 2
    assert all(row["n"] == 2 for row in rows.values())
    plain, made = rows["plain resampling"], rows["upscale"]
    assert plain["lsd_high"] > 3, "nothing is left above the cutoff: decades away"
    assert made["lsd_high"] < plain["lsd_high"]
    assert made["lsd"] < made["lsd_high"], "the low band is kept"


def test_inpainting_knows_truth_silence_and_noise(pipe, clips):
    rows = by_method(edits.inpainting(pipe, clips, YamNet(), lambda: None, steps=2))
    noise, silent = rows["noise at the clip's level"], rows["no-op (silence)"]
    assert noise["kl"] < silent["kl"], "these clips are noise"
    assert noise["fd"] < silent["fd"]
    assert noise["level_db"] == pytest.approx(0, abs=1)
    assert silent["level_db"] is None, "silence has no level, and JSON no infinity"


def test_denoising_is_scored_against_the_clean_clip(pipe, clips):
    rows = by_method(edits.denoising(pipe, clips, lambda: None, snr=10.0, steps=2))
    assert rows["no-op"]["si_sdr_db"] == pytest.approx(10, abs=0.2)


def test_divergence_is_of_distributions():
    scores = torch.tensor([0.5, 0.25, 0.25])
    assert edits.divergence(scores, 3 * scores) == pytest.approx(0)
    assert edits.divergence(scores, scores.flip(0)) > 0


def test_held_out_clips_are_of_fold_4_and_cut_where_they_are_loud(pipe, tmp_path):
    wave = np.zeros(80000)
    wave[40000:60000] = 0.3 * np.random.default_rng(0).normal(size=20000)
    soundfile.write(tmp_path / "x.wav", wave, 16000)
    common = {"path": str(tmp_path / "x.wav"), "seconds": 5.0, "captions": ("x",), "licence": "CC0-1.0"}
    rows = [Row(**common, labels=(label,), fold=fold) for label in list(PROMPTS)[:3] for fold in (1, 4)]
    held = edits.real_clips(rows, pipe, 10)
    assert [clip.label for clip in held] == list(PROMPTS)[:3]
    assert all(len(clip.wave) == pipe.spec.samples(pipe.defaults.seconds) for clip in held)
    assert all(float(clip.wave.square().mean()) > 0.01 for clip in held)


def test_the_command_measures_and_refuses(tiny_model, capsys, tmp_path):
    rows = []
    for fold in (1, 2, 3, 4):
        for place, label in enumerate(PROMPTS):
            path = tmp_path / f"{fold}-{place}.wav"
            soundfile.write(path, 0.1 * np.random.default_rng(place).normal(size=24000), 16000)
            rows.append(Row(str(path), (label,), labels=(label,), fold=fold))
    listing = manifest.write(rows, tmp_path / "rows.jsonl")
    words = [
        "--manifest",
        str(listing),
        "-m",
        str(tiny_model),
        "--device",
        "cpu",
        "-o",
        str(tmp_path / "out"),
    ]
    assert edits.main([*words, "--part", "denoise", "--clips", "2", "--steps", "1"]) == 0
    assert "| no-op | 2 |" in capsys.readouterr().out
    content = json.loads((tmp_path / "out" / "edits.json").read_text())
    assert content["settings"] == {"steps": 1} and len(content["denoise"]) == 4
    assert edits.main(words) == 2
    assert "--force" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        edits.main([*words, "--part", "sing"])
