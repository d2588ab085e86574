"""The embedded model's training in pieces: every part of it on a CPU, at a few batches, and what is sent back."""

import os
import shutil
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from audioldm import recipes
from audioldm.datasets.check import check
from audioldm.datasets.decode import encode
from audioldm.datasets.manifest import Row, write
from audioldm.errors import AudioLDMError
from audioldm.nets.clap import build_small_clap, train_tokenizer
from audioldm.training.clap import write_table
from recipes.embedded import train
from recipes.embedded.lease import MINUTES

ROOT = Path(__file__).parents[3]
SOURCES = {
    "esc10": ["esc10"],
    "opensounds": ["opensounds/pack"],
    "rendered": ["rendered/notes", "rendered/tones", "rendered/speech"],
    "composed": ["composed"],
}

LEASE = "+callbacks.lease._target_=recipes.embedded.lease.Lease"


def test_what_was_sent_comes_back_in_pieces_of_the_allowed_size(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(train, "PART_BYTES", 20_000)
    monkeypatch.chdir(tmp_path)
    weights = train.RUNS / "vae/model/vae/weights.safetensors"
    weights.parent.mkdir(parents=True)
    (weights.parent / "config.json").write_text("{}")
    rng = torch.Generator().manual_seed(0)
    state = {str(i): torch.randn(60, 50, generator=rng).half().float() for i in range(8)}
    save_file(state | {"count": torch.tensor(3)}, weights)
    train.send(tmp_path / "sent")
    pieces = sorted((tmp_path / "sent").glob("vae.vae.*.safetensors"))
    assert len(pieces) > 2 and all(p.stat().st_size <= 20_000 + 1000 for p in pieces)  # and a header
    shutil.rmtree(train.RUNS)
    train.bring(tmp_path / "sent")
    back = load_file(weights)
    assert all(torch.equal(back[k].float(), v) for k, v in state.items()) and back["count"] == 3
    assert (weights.parent / "config.json").read_text() == "{}"


def test_what_was_sent_by_others_writes_only_below_the_runs(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sent").mkdir()
    (tmp_path / "secret").write_text("mine")
    with tarfile.open(tmp_path / "sent/settings.tar.gz", "w:gz") as tar:
        tar.add(__file__, arcname="secret")
    with pytest.raises(AudioLDMError, match="leads out of"):
        train.bring(tmp_path / "sent")
    assert (tmp_path / "secret").read_text() == "mine"


def test_a_lease_ends_a_training_in_time(tmp_path: Path, monkeypatch):
    """0.05 minutes allow far fewer than a million batches; the learning rate ends where the run ends."""
    monkeypatch.setenv(MINUTES, "0.05")
    settings = [f"run_dir={tmp_path}", "batches=1000000", LEASE, "val_every=100000"]
    experiment = recipes.build(recipes.load("tiny/vae", settings))
    experiment.fit()
    module = experiment.module
    assert 0 < module.batch_count <= module.batches + 1 and module.batches < 100_000
    assert (tmp_path / "model/vae/config.json").is_file()


def test_a_run_that_was_cut_off_goes_on_with_what_is_left_of_the_minutes(tmp_path: Path, monkeypatch):
    def cfg(minutes: float, batches: int = 2):
        monkeypatch.setenv(MINUTES, str(minutes))
        words = [f"run_dir={tmp_path}", f"batches={batches}", LEASE, "batch_size=2"]
        return recipes.load("tiny/vae", words)

    experiment = recipes.build(cfg(2.0))
    assert experiment.folder.checkpoint() is None
    experiment.fit()
    again = recipes.build(cfg(1.31)).folder
    assert again.checkpoint() == tmp_path / "checkpoints/last.ckpt"
    again.open()
    with pytest.raises(AudioLDMError, match="other settings"):
        recipes.build(cfg(1.31, batches=1)).folder.open()


def prepare(folder: Path) -> None:
    """Manifests of every source with a few noises, and the start of CLAP."""
    rng = torch.Generator().manual_seed(0)
    for name, sources in SOURCES.items():
        rows = []
        for i in range(5 * len(sources)):
            path = folder / f"data/raw/{name}/{i}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            encode(path, 0.3 * torch.randn(24000, generator=rng), 16000)
            split = "val" if i % 5 == 4 else "train"
            rows.append(
                Row(
                    str(path),
                    (f"noise {i}",),
                    split=split,
                    source=sources[i % len(sources)],
                    group=f"{name}{i}",
                )
            )
        write(
            [replace(row, licence="CC0-1.0") for row in check(rows).rows], folder / f"data/raw/{name}.jsonl"
        )
    texts = [f"noise {i}" for i in range(15)]
    vectors = torch.randn(15, 8, generator=rng)
    write_table(dict(zip(texts, vectors, strict=True)), folder / "data/start/minilm.safetensors")
    table = {f"esc10/{i}.wav": vector for i, vector in enumerate(vectors[:5])}
    write_table(table, folder / "data/start/yamnet.safetensors")
    clap = build_small_clap(train_tokenizer(texts, size=100), width=16, layers=1, widths=(8, 16))
    clap.save(folder / "data/start/clap")


@pytest.mark.slow
def test_the_whole_training_of_the_embedded_model_rehearses_on_a_cpu(tmp_path: Path):
    prepare(tmp_path)
    words = ["parts", "model", "--batches", "2", "--trainer", "cpu", "--once", "--send", "sent"]

    def typed() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "recipes.embedded.train", *words],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "2"},
            capture_output=True,
            text=True,
        )

    done = typed()
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "runs/embedded/release/model_index.json").is_file()
    assert "sent" in done.stdout and (tmp_path / "sent/ldm.unet.0.safetensors").is_file()
    weights = tmp_path / "runs/embedded/vae/model/vae/diffusion_pytorch_model.safetensors"
    before = weights.stat().st_mtime_ns
    (tmp_path / "runs/embedded/vocoder_vae/ended").unlink()  # as if it had been cut off there
    again = typed()
    assert again.returncode == 0, again.stdout + again.stderr
    assert weights.stat().st_mtime_ns == before, "what had come to its end was left alone"
    assert "whole already" in again.stdout, "and so were the latents"
