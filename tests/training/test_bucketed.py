"""Training from a cache of several lengths: batches of one length, and a run that goes on as if it had not stopped."""

from pathlib import Path

import pytest
import torch

from audioldm import recipes
from audioldm.datasets.decode import encode
from audioldm.datasets.latents import Encoded, write_latents
from audioldm.datasets.manifest import Row, write
from audioldm.datasets.synthetic import Synthetic
from audioldm.errors import AudioLDMError
from audioldm.spec import AudioSpec
from audioldm.training.callbacks import StopAfter
from audioldm.training.data import from_latents, from_manifests


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
    data = from_latents(folder=make(tmp_path), seconds_a_batch=1.28, val_folder=str(tmp_path))
    shapes = [tuple(batch.mean.shape) for _, batch in zip(range(9), data.train_dataloader(), strict=False)]
    assert {shape[2]: shape[0] for shape in sorted(shapes)} == {8: 4, 16: 2, 32: 1}
    val = [tuple(batch.mean.shape) for batch in data.val_dataloader()]
    assert [shape[2] for shape in val] == [8] * 2 + [16] * 3 + [32] * 5
    assert sum(shape[0] for shape in val) == 15


def test_a_validation_cache_of_other_lengths_is_refused(tmp_path):
    train, val = make(tmp_path / "a", (8, 16)), make(tmp_path / "b", (8, 12))
    with pytest.raises(AudioLDMError, match=r"windows of \[12\]"):
        from_latents(folder=train, val_folder=val, seconds_a_batch=9.0)
    with pytest.raises(AudioLDMError, match="seconds_a_batch"):
        from_latents(folder=train, seconds_a_batch=0.1)


def test_a_run_in_two_parts_is_a_run_in_one(tmp_path):
    folder = make(tmp_path / "c")
    words = [
        f"data.folder={folder}",
        "data.seconds_a_batch=1.28",
        "batches=14",
        "val_every=20",
        "trainer=cpu",
    ]
    in_two_parts("tiny/ldm_buckets", words, 11, tmp_path)  # a pass has ten batches


def in_two_parts(name: str, words: list[str], first: int, tmp_path: Path) -> None:
    """The weights of a run that stopped after ``first`` batches and went on are those of one that did not."""
    states = {}
    for run, limits in (("whole", (None,)), ("parts", (first, None))):
        for limit in limits:
            experiment = recipes.build(recipes.load(name, [*words, f"run_dir={tmp_path / run}"]))
            next(c for c in experiment.trainer.callbacks if isinstance(c, StopAfter)).limit = limit
            experiment.fit()
        states[run] = experiment.module.state_dict()
    assert all(torch.equal(states["whole"][key], states["parts"][key]) for key in states["whole"])


def clips(folder: Path, seconds: tuple[float, ...], each: int) -> Path:
    """A manifest of ``each`` clips of every length, the last of each for validation."""
    rows = []
    for i, length in enumerate(length for length in seconds for _ in range(each)):
        wave = Synthetic(AudioSpec(), length, each * len(seconds), seed=0)[i][0][0]
        path = encode(folder / f"{i}.wav", wave, 16000)
        split = "val" if i % each == each - 1 else "train"
        rows.append(Row(str(path), (f"sound {i}",), seconds=length, split=split))
    return write(rows, folder / "m.jsonl")


def test_waves_of_unequal_length_fill_batches_of_equal_seconds(tmp_path):
    manifest = clips(tmp_path, (0.3, 0.6, 1.1), each=5)
    lengths = {"buckets": (0.32, 0.64, 1.28), "seconds_a_batch": 1.28}
    data = from_manifests(AudioSpec(), manifests=[str(manifest)], **lengths)
    batches = [batch for _, batch in zip(range(7), data.train_dataloader(), strict=False)]
    assert sorted(tuple(batch.wave.shape) for batch in batches) == [
        *[(1, 1, 20480)] * 4, *[(2, 1, 10240)] * 2, (4, 1, 5120),
    ]  # fmt: skip
    # one pass: every clip of training once
    assert len({name for batch in batches for name in batch.ids}) == 12
    val = [tuple(batch.wave.shape) for batch in data.val_dataloader()]
    assert val == [(1, 1, n) for n in (5120, 10240, 20480)]


def test_an_autoencoder_trained_on_unequal_waves_in_two_parts_is_one_trained_in_one(tmp_path):
    manifest = clips(tmp_path, (0.3, 0.6), each=4)
    words = [
        "data=bucketed_manifests", f"data.manifests=[{manifest}]", "data.buckets=[0.32,0.64]", "batches=7", "threads=1",
        "task.vae.channels=[8,8]", "data.seconds_a_batch=0.64", "val_every=7", "task.adversarial_start=99",
    ]  # fmt: skip
    in_two_parts("tiny/vae", words, 3, tmp_path)


def test_mixup_on_the_fly_joins_captions(tmp_path):
    rows = []
    for i in range(4):
        wave = Synthetic(AudioSpec(), 0.5, 4, seed=0)[i][0][0]
        path = encode(tmp_path / f"{i}.wav", wave, 16000)
        rows.append(Row(str(path), (f"sound {i}",), seconds=0.5))
    manifest = write(rows, tmp_path / "m.jsonl")
    data = from_manifests(AudioSpec(), manifests=[str(manifest)], seconds=0.5, batch_size=4, mixup=1.0)
    captions = next(iter(data.train_dataloader())).captions
    assert any(" and sound " in caption for caption in captions)
