"""Training from a cache of several lengths: batches of one length, and a run that goes on as if it had not stopped."""

from pathlib import Path

import pytest
import torch

from audioldm import recipes
from audioldm.datasets.cache import Encoded, write_latents
from audioldm.datasets.decode import encode
from audioldm.datasets.manifest import Row, write
from audioldm.datasets.synthetic import Synthetic
from audioldm.errors import AudioLDMError
from audioldm.spec import AudioSpec
from audioldm.training.bucketed import from_bucketed_latents
from audioldm.training.callbacks import Budget
from audioldm.training.data import from_manifests


def make(folder: Path, frames: tuple[int, ...] = (8, 16, 32), each: int = 5) -> str:
    rng = torch.Generator().manual_seed(0)
    unit = torch.nn.functional.normalize(torch.randn(2, 64, generator=rng), dim=-1)
    rows = [
        Encoded(torch.randn(8, t, 16, generator=rng), torch.full((8, t, 16), 0.1), unit[0], unit[1:], "made")
        for t in frames
        for _ in range(each)
    ]
    about = {"scaling_factor": 1.0, "null": unit[0].tolist(), "seconds": max(frames) * 0.04, "stride": 4}
    write_latents(rows, folder, about=about)
    return str(folder)


def test_batches_hold_one_length_and_about_as_many_seconds(tmp_path):
    data = from_bucketed_latents(folder=make(tmp_path), seconds_a_batch=1.28, val_folder=str(tmp_path))
    shapes = [tuple(batch.mean.shape) for _, batch in zip(range(9), data.train_dataloader(), strict=False)]
    assert {shape[2]: shape[0] for shape in sorted(shapes)} == {8: 4, 16: 2, 32: 1}
    val = [tuple(batch.mean.shape) for batch in data.val_dataloader()]
    assert [shape[2] for shape in val] == [8] * 2 + [16] * 3 + [32] * 5
    assert sum(shape[0] for shape in val) == 15


def test_a_validation_cache_of_other_lengths_is_refused(tmp_path):
    train, val = make(tmp_path / "a", (8, 16)), make(tmp_path / "b", (8, 12))
    with pytest.raises(AudioLDMError, match=r"windows of \[12\]"):
        from_bucketed_latents(folder=train, val_folder=val, seconds_a_batch=9.0)
    with pytest.raises(AudioLDMError, match="seconds_a_batch"):
        from_bucketed_latents(folder=train, seconds_a_batch=0.1)


def test_a_run_in_two_parts_is_a_run_in_one(tmp_path):
    folder = make(tmp_path / "c")
    words = [
        f"data.folder={folder}",
        "data.seconds_a_batch=1.28",
        "batches=14",
        "val_every=20",
        "trainer=cpu",
    ]

    def run(name, limit):
        settings = [*words, f"run_dir={tmp_path / name}"]
        cfg = recipes.load("tiny/ldm_buckets", settings)
        experiment = recipes.build(cfg)
        checkpoint, _ = recipes.open_run(cfg, settings)
        next(c for c in experiment.trainer.callbacks if isinstance(c, Budget)).limit = limit
        experiment.trainer.fit(experiment.module, experiment.data, ckpt_path=checkpoint, weights_only=True)
        return experiment.module.state_dict()

    whole = run("whole", 14)  # a pass has ten batches
    run("parts", 11)
    parts = run("parts", 14)
    assert all(torch.equal(whole[key], parts[key]) for key in whole)


def test_mixup_on_the_fly_joins_captions(tmp_path):
    rows = []
    for i in range(4):
        wave = Synthetic(AudioSpec(), 0.5, 4, seed=0)[i][0][0]
        path = encode(tmp_path / f"{i}.wav", wave, 16000)
        rows.append(Row(str(path), (f"sound {i}",), seconds=0.5))
    manifest = write(rows, tmp_path / "m.jsonl")
    data = from_manifests(
        AudioSpec(), manifests=[str(manifest)], seconds=0.5, batch_size=4, mixup=1.0, workers=0
    )
    captions = next(iter(data.train_dataloader())).captions
    assert any(" and sound " in caption for caption in captions)
