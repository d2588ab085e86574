"""``audioldm ema``: an average of any width from a run's stored ones, in a folder that export takes."""

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from audioldm.training.ema import synthesise
from tests.training.test_kill import make_cache

WEIGHTS = Path("model") / "unet" / "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A U-Net of twelve batches whose averages were stored every four."""
    from audioldm.cli.app import run

    folder = tmp_path_factory.mktemp("ema")
    make_cache(folder / "data")
    words = [
        "batches=12", "val_every=12", "batch_size=2", "threads=1", "callbacks.listen=null", "task.lr=1e-2",
        f"data.folder={folder}/data", f"run_dir={folder}/run", "callbacks.power_ema.every=4",
        "callbacks.ema.decay=null",
    ]  # fmt: skip
    assert run(["train", "tiny/ldm", *words]) == 0
    return folder / "run"


def test_the_average_is_a_run_like_folder_and_a_bar_counts_the_stored(
    run: Path, command, tmp_path, capsys, monkeypatch
):
    assert len(list((run / "ema").iterdir())) == 3
    capsys.readouterr()
    assert command("ema", run, "--width", "0.1", "-o", tmp_path / "a") == 0
    assert capsys.readouterr().out.strip().startswith(str(tmp_path / "a" / "model" / "unet"))
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == [
        "config.yaml", "metrics.jsonl", "model", "overrides.txt", "provenance.json",
    ]  # fmt: skip
    result, last = load_file(tmp_path / "a" / WEIGHTS), load_file(run / WEIGHTS)
    want = synthesise(run / "ema", width=0.1)
    assert result.keys() == last.keys() and all(torch.allclose(result[k], want[k]) for k in want)
    moved = max(float((result[key] - last[key]).abs().max()) for key in result)
    assert moved > 1e-4  # it is not the run's last weights

    monkeypatch.setenv("FORCE_COLOR", "1")
    # a wider average is nearer to the start, and an earlier end uses nothing later
    assert command("ema", run, "--width", "0.2", "-o", tmp_path / "b") == 0
    assert command("ema", run, "--width", "0.1", "--at", "8", "-o", tmp_path / "c") == 0
    assert re.search(r"(\d)/\1 averages", capsys.readouterr().err)
    wide, early = (load_file(tmp_path / name / WEIGHTS) for name in ("b", "c"))
    key = "conv_in.weight"
    assert (wide[key] - last[key]).norm() > (result[key] - last[key]).norm()
    assert torch.allclose(early[key], synthesise(run / "ema", width=0.1, at=8)[key])
    assert not torch.allclose(early[key], result[key])


def test_refusals_lose_nothing(run: Path, command, tmp_path, capsys):
    before = sorted(run.rglob("*"))
    for name in ("mine", "empty"):
        (tmp_path / name).mkdir()
    (tmp_path / "mine" / "precious").write_text("stays")
    for words, expected in (
        *(
            ((run, "-o", out, "--force"), "hold one another")
            for out in (run, run / "model" / "x", run.parent)
        ),
        ((run, "-o", tmp_path), "--force"),
        ((run, "-o", tmp_path / "a", "--width", "0.5"), "width=0.5"),
        ((run, "-o", tmp_path / "a", "--at", "2"), "of step 2 or before"),
        ((run, "-o", tmp_path / "mine", "--force"), "is no run"),
        ((tmp_path / "empty", "-o", tmp_path / "a"), "no stored averages"),
    ):
        assert command("ema", *words) == 2
        assert expected in capsys.readouterr().err
    assert (tmp_path / "mine" / "precious").exists()
    assert not (tmp_path / "a").exists() and sorted(run.rglob("*")) == before
