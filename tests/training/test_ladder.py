"""The ladder for finding faults, previews, dry runs, and what the command line says about them."""

import re
import shutil
import sys
from pathlib import Path

import pytest
import soundfile as sf

import audioldm
from audioldm import recipes
from audioldm.training.callbacks import StopAfter
from tests.training.test_kill import make_cache

FEW = ["seconds=0.32", "batch_size=2", "threads=1", "+trainer.limit_val_batches=1"]


@pytest.fixture(autouse=True)
def inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_one_step_meets_everything(command):
    assert command("train", "tiny/vae", *FEW, "debug=one_step") == 0
    run = Path("runs/debug/one_step/tiny/vae")
    assert (run / "model" / "vae" / "config.json").exists() and (run / "checkpoints" / "last.ckpt").exists()
    previews = sorted(p.name for p in (run / "previews" / "batch-000000001").iterdir())
    assert previews == ["mel_output_0.png", "mel_output_1.png", "mel_real_0.png", "mel_real_1.png"]


def test_overfit_says_how_far_the_loss_fell(command, capsys):
    words = ["train", "tiny/vae", *FEW, "debug=overfit", "batches=12", "val_every=20"]
    assert command(*words, "task.adversarial_start=99") == 0
    assert "train/loss on one batch" in capsys.readouterr().err
    assert command(*words, "task.lr=1e-12") == 1
    assert "did not fall" in capsys.readouterr().err


def test_profile_shows_where_the_time_goes(command, capsys):
    # validations count among the steps of the profile
    assert command("train", "tiny/clap", *FEW[:-1], "debug=profile") == 0
    assert "conv" in capsys.readouterr().out
    traces = list(Path("runs/debug/profile/tiny/clap").glob("*.trace.json"))
    assert traces and all(trace.stat().st_size > 1000 for trace in traces)


def test_a_dry_run_tells_sizes_and_gaps_and_makes_nothing(command, capsys):
    assert command("train", "tiny/ldm", "--dry-run") == 0
    told = capsys.readouterr()
    assert "unet:" in told.err and "M parameters" in told.err and "memory: about" in told.err
    assert "missing: runs/tiny/latents" in told.err
    assert "missing: runs/tiny/clap/model" in told.err  # of the previews
    assert "would begin runs/tiny/ldm: 600 batches" in told.err
    assert "prediction:" in told.out
    assert not Path("runs").exists()


def test_a_dry_run_estimates_what_is_trained_and_what_lies_beside(tiny_model, tmp_path, monkeypatch):
    def numbers(recipe, *words):
        return [float(n) for n in re.findall(r"\d+\.?\d*", recipes.memory(recipes.load(recipe, words)))][:2]

    none = ["callbacks.ema.decay=null", "callbacks.power_ema.every=null"]
    [plain, clip], [averaged, same] = numbers("audiocaps/ldm_s", *none), numbers("audiocaps/ldm_s")
    assert plain == 2.8 and averaged == 5.5 and clip == same  # 4 and 8 copies of 185 M numbers in float32
    assert numbers("audiocaps/ldm_s", "speed.checkpointing=true")[1] < 0.4 * clip
    tuned = ["data.folder=.", f"ref={tiny_model}"]
    line = recipes.memory(recipes.load("finetune/audioldm", tuned))
    assert line.startswith("about")
    # of its own length
    assert f"{audioldm.AudioLDM.from_pretrained(tiny_model).defaults.seconds:g} s" in line
    monkeypatch.setattr("audioldm.convert.hub.constants.HF_HUB_CACHE", tmp_path)
    home = tmp_path / "models--owner--name"
    shutil.copytree(tiny_model, home / "snapshots" / "c0")
    asked = recipes.load("finetune/audioldm", ["ref=owner/name", "data.folder=."])
    assert recipes.memory(asked) == "not known before owner/name is here" and not recipes.missing(asked)
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text("c0")
    assert recipes.memory(asked) == line
    assert recipes.missing(recipes.load("finetune/audioldm", ["ref=no.ckpt", "data.folder=."])) == ["no.ckpt"]


def test_the_bar_counts_batches_across_resumes_and_nothing_else_is_said(command, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    words = ["train", "tiny/vae", *FEW, "val_every=1", "task.adversarial_start=99", "batches=3"]
    cfg = recipes.load(words[1], words[2:])
    experiment = recipes.build(cfg)
    next(c for c in experiment.trainer.callbacks if isinstance(c, StopAfter)).limit = 1
    experiment.fit()
    assert "0/3" in capsys.readouterr().err
    assert command(*words) == 0
    told = capsys.readouterr()
    assert "1/3" in told.err and "3/3" in told.err and "v_num" not in told.err
    kept = told.err.rpartition("\x1b[2K")[2]  # after the bar over the data and the nets has erased itself
    assert kept.splitlines()[0] == "resuming runs/tiny/vae/checkpoints/last.ckpt"
    assert "Tip" not in told.err and "weights_only" not in told.err


def test_fixed_prompts_are_heard_while_it_learns(command, tiny_model):
    listen = [
        "callbacks.listen.every=2", "callbacks.listen.seconds=0.64", "+callbacks.listen.steps=2",
        *(f"callbacks.listen.parts.{part}={tiny_model / part}" for part in ("vae", "vocoder")),
        f"callbacks.listen.parts.clap={tiny_model}",
    ]  # fmt: skip
    sizes = ["task.unet.latent_channels=4", "task.unet.film_dim=16"]
    few = ["batches=4", "val_every=4", "batch_size=2", "data.folder=data"]
    make_cache(Path("data"), channels=4, width=16)
    assert command("train", "tiny/ldm", *few, *sizes, *listen) == 0
    folders = sorted(Path("runs/tiny/ldm/previews").iterdir())
    assert [f.name for f in folders] == ["batch-000000002", "batch-000000004"]
    names = ["mel_a_high_tone.png", "mel_a_low_tone.png", "wave_a_high_tone.wav", "wave_a_low_tone.wav"]
    assert sorted(p.name for p in folders[0].iterdir()) == names
    wave, rate = sf.read(folders[0] / names[2])
    assert rate == 16000 and len(wave) == 10240
    # the parts are missing
    assert command("train", "tiny/ldm", *few, *sizes, *listen[:3], "run_dir=other") == 2
