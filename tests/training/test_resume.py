"""Training 4 batches equals training 2, stopping, and training the other 2; the average survives too."""

import json
import os
from dataclasses import replace

import pytest
import torch
from omegaconf import OmegaConf

from audioldm import recipes
from audioldm.errors import AudioLDMError
from audioldm.training.callbacks import StopAfter, read_metrics
from audioldm.training.run_folder import goes_on

SMALL = ["val_every=2", "trainer=cpu", "seconds=0.32", "batch_size=2", "+trainer.limit_val_batches=1"]


def train(name: str, folder, *overrides: str):
    settings = [*SMALL, f"run_dir={folder}", *overrides]
    return recipes.build(recipes.load(name, settings), settings)


def run(name: str, folder, batches: int, *overrides: str):
    """Train up to ``batches`` of a run of 4, so that an early stop has the learning rates of the whole."""
    experiment = train(name, folder, "batches=4", *overrides)
    next(c for c in experiment.trainer.callbacks if isinstance(c, StopAfter)).limit = batches
    experiment.fit()
    return experiment.module


@pytest.mark.parametrize("name", ["tiny/vae", "tiny/clap"])
def test_resuming_equals_not_stopping_and_a_finished_run_does_nothing_more(name: str, tmp_path):
    overrides = ["task.adversarial_start=1"] if name == "tiny/vae" else []
    whole = run(name, tmp_path / "whole", 4, *overrides)
    for batches, met in ((2, 2), (4, 4), (4, 4)):
        parts = run(name, tmp_path / "parts", batches, *overrides)
        assert int(parts.batch_count) == met
    for key, value in whole.state_dict().items():
        assert torch.equal(parts.state_dict()[key], value), key
    assert (tmp_path / "parts/model").is_dir()


@pytest.mark.filterwarnings("ignore::audioldm.errors.AudioLDMWarning")
def test_another_configuration_is_refused_and_what_no_training_wrote_is_named_or_left_out(tmp_path):
    run("tiny/vae", tmp_path, 2)
    others = (["batches=3"], ["batches=4", "seed=1"], ["batches=9", "seed=1"], ["batches=9", "+minutes=1"])
    folder = train("tiny/vae", tmp_path, "batches=4").folder
    for other in others:
        cfg = recipes.load("tiny/vae", [*SMALL, f"run_dir={tmp_path}", *other])
        with pytest.raises(AudioLDMError, match="other settings"):
            replace(folder, config=OmegaConf.to_yaml(cfg)).open()
    path = tmp_path / "provenance.json"
    whole = path.read_text()
    for text in ("", "[]", '{"data": 3}', '{"resumed": {}}', "\xff", "[" * 100_000):
        path.write_bytes(text.encode("latin-1"))
        with pytest.raises(AudioLDMError, match=r"provenance\.json was not written by a training"):
            folder.open()
    path.write_text(whole)
    os.mkfifo(pipe := tmp_path / "previews.csv")
    with pytest.raises(AudioLDMError, match=r"previews\.csv is no file"):
        folder.open()
    pipe.unlink()
    curves = tmp_path / "metrics.jsonl"
    before = read_metrics(curves)
    curves.write_bytes(b'{}\n{"batch": "x"}\n[1]\n{\xff}\n{"batch": 1, "a": [2]}\n' + curves.read_bytes())
    (tmp_path / ".pid").write_bytes(b"\xb2\xff")
    assert int(run("tiny/vae", tmp_path, 3).batch_count) == 3
    assert before and read_metrics(curves)[: len(before)] == before


def test_what_is_no_number_of_batches_is_another_setting():
    assert not goes_on("batches: null", "batches: 4") and not goes_on("batches: 4", "seed: 5")
    assert not goes_on("batches: 4\nval_batches: 1", "batches: 4\nval_batches: 2")


def test_a_run_goes_on_with_smaller_batches(tmp_path):
    """As it must where the memory has become too small for the old ones."""
    run("tiny/vae", tmp_path, 2, "batch_size=4")
    assert int(run("tiny/vae", tmp_path, 4, "batch_size=1").batch_count) == 4
    assert "batch_size: 1\n" in (tmp_path / "config.yaml").read_text()


def test_a_finished_run_can_be_lengthened(tmp_path):
    """With a constant rate it equals the longer run; provenance says that it went on."""
    constant = "task.optim.schedule=constant"
    whole = run("tiny/vae", tmp_path / "whole", 4, constant)
    short = train("tiny/vae", tmp_path / "parts", "batches=2", constant)
    short.fit()
    longer = run("tiny/vae", tmp_path / "parts", 4, constant)
    assert (int(short.module.batch_count), int(longer.batch_count)) == (2, 4)
    for key, value in whole.state_dict().items():
        assert torch.equal(longer.state_dict()[key], value), key
    assert "resumed" in json.loads((tmp_path / "parts/provenance.json").read_text())
