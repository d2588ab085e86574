"""A few sounds, every recipe: what learns, what is written, what is heard, and what is refused."""

import json
import warnings
from types import SimpleNamespace

import pytest
import soundfile
import torch

from audioldm import recipes
from audioldm.adapters.files import read
from audioldm.errors import AudioLDMError, AudioLDMWarning
from audioldm.pipeline.audioldm import AudioLDM
from audioldm.training.callbacks import Overfitting, StopAfter
from audioldm.training.finetune import Prior
from audioldm.training.sounds import from_sounds

NAMES = [name for name in recipes.names() if name.startswith("personal/")]
QUICK = {"seconds": 0.32, "steps": 2, "guidance": 1.0}


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """Three short tones of other pitches, as a user has them: another rate, one of them in stereo."""
    folder = tmp_path_factory.mktemp("my_sounds")
    for i, hertz in enumerate((300.0, 310.0, 320.0)):
        wave = 0.3 * torch.sin(2 * torch.pi * hertz * torch.arange(11025) / 22050)
        soundfile.write(folder / f"{i}.wav", torch.stack([wave] * (1 + (i == 1)), 1).numpy(), 22050)
    return folder


@pytest.fixture
def settings(tiny_model, sounds, tmp_path):
    """Overrides for a run of a moment."""
    return [
        f"data.model={tiny_model}", f"data.folder={sounds}", f"run_dir={tmp_path}/run",
        "batches=3", "batch_size=2", "val_every=10", "data.seconds=0.32", "data.windows=2",
        "trainer.log_every_n_steps=1",
    ]  # fmt: skip


def fitted(name, overrides, *, fresh=False):
    experiment = recipes.build(recipes.load(name, overrides), fresh=fresh)
    experiment.fit()
    return experiment


@pytest.fixture(scope="module")
def before(tiny_model):
    """The model that nothing was taught, and what it makes of each prompt."""
    pipe = AudioLDM.from_pretrained(tiny_model)
    return pipe, {prompt: pipe([prompt], seeds=[0], **QUICK) for prompt in ("<mine>", "my sound")}


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_learns_only_its_own_and_is_heard(name, settings, tiny_model, before, tmp_path):
    prior = ["task.prior.clips=2"] if "dreambooth" in name else []
    experiment = fitted(name, [*settings, *prior])
    module, model = experiment.module, tmp_path / "run" / "model"
    pipe, plain = before
    prompt = "<mine>" if "textual" in name else "my sound"
    if name == "personal/dreambooth":
        after = AudioLDM.from_pretrained(model)
        assert after.about["personal"]["prompt"] == "my sound"
    else:
        found = read(model / "adapter.safetensors")
        moving = sum(p.numel() for p in module.parameters() if p.requires_grad)
        assert moving == found.parameters
        assert found.base["unet"] == pipe.hashes["unet"] and found.about["model"] == "tiny"
        frozen = {k: v for k, v in module.unet.state_dict().items() if ".factors." not in k}
        for key, value in frozen.items():
            own = key.replace("parametrizations.", "").replace(".original", "")
            assert torch.equal(value, pipe.unet.state_dict()[own])
        after = AudioLDM.from_pretrained(tiny_model).adapt(model / "adapter.safetensors")
    assert not torch.equal(after([prompt], seeds=[0], **QUICK), plain[prompt])
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert ("train/prior" in rows[-1]) == bool(prior)
    kept = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    if name != "personal/dreambooth":
        assert sum(v.numel() for v in kept.values()) < moving + 10_000, "no frozen weight"


@pytest.mark.parametrize("name", ["personal/textual_inversion", "personal/dreambooth_lora"])
def test_stopping_and_resuming_equals_not_stopping(name, settings, tmp_path):
    prior = ["task.prior.clips=2"] if "dreambooth" in name else []
    words = [*settings, *prior, "batches=4", "data.windows=1"]
    whole = fitted(name, [*words, f"run_dir={tmp_path}/whole"])
    experiment = recipes.build(recipes.load(name, words))
    next(c for c in experiment.trainer.callbacks if isinstance(c, StopAfter)).limit = 2
    experiment.fit()
    again = fitted(name, words)
    assert (experiment.module.batch_count, again.module.batch_count) == (2, 4)
    pairs = zip(whole.module.named_parameters(), again.module.named_parameters(), strict=True)
    assert all(torch.equal(a, b) for (_, a), (_, b) in pairs)


def test_the_loss_on_one_window_of_one_clip_falls(settings, sounds, tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "a.wav").write_bytes((sounds / "0.wav").read_bytes())
    more = [f"data.folder={tmp_path}/one", "data.windows=1", "batches=40", "task.lr=1e-2", "task.rank=16"]
    fitted("personal/locon", [*settings, *more])
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    losses = [row["train/loss"] for row in rows]
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])


def test_the_class_sounds_are_the_models_own_and_are_kept(tiny_model, tmp_path):
    pipe, path = AudioLDM.from_pretrained(tiny_model), tmp_path / "prior.safetensors"
    prior, other = Prior("rain", clips=2), Prior("wind", clips=3)
    prior.fill(pipe, path, seed=0, begun=False)
    one = pipe.sample(pipe.encode_text(["rain"]), pipe.encode_text([""]), seeds=[1], **vars(pipe.defaults))
    assert torch.equal(prior.latents[1:], one)
    stamp = path.stat().st_mtime_ns
    Prior("rain", clips=2).fill(pipe, path, seed=0, begun=True)
    assert path.stat().st_mtime_ns == stamp
    with pytest.raises(AudioLDMError, match="does not hold what this run began with"):
        other.fill(pipe, path, seed=0, begun=True)
    other.fill(pipe, path, seed=0, begun=False)
    assert len(other.latents) == 3 and not torch.equal(other.latents[:2], prior.latents)


def test_folders_that_cannot_be_learned_from_are_named(tiny_model, tmp_path, sounds):
    def refused(folder, words: str, **settings):
        with pytest.raises(AudioLDMError, match=words):
            from_sounds(folder=str(folder), model=str(tiny_model), cache=str(tmp_path / "c"), **settings)

    bad = tmp_path / "bad"
    bad.mkdir()
    refused(bad, "holds no sounds")
    soundfile.write(bad / "quiet.wav", torch.zeros(16000).numpy(), 16000)
    (bad / "broken.wav").write_bytes(b"RIFF")
    refused(bad, r"corrupt: .*broken\.wav.*and 1 more")
    refused(tmp_path / "none", "There is no folder")


def test_mistakes_in_a_recipe_are_one_line(settings):
    for override, words in (
        ("task.kind=lore", "kind='lore' is no adapter"),
        ("task.targets=[to_qq]", "matches no layer.*Near it: .*to_q"),
        ("data.windows=0", "data.windows=0 is out of range"),
        ("task.prior={prompt: rain, clips: 0}", "task.prior.clips=0 is out of range"),
    ):
        with pytest.raises(AudioLDMError, match=words):
            recipes.build(recipes.load("personal/lora", [*settings, override]))
    for override, words in (
        ("task.word=mine", "word='mine' is no placeholder"),
        ("task.templates=[a sound]", "Write {} in each"),
        ("task.templates=[]", "Write {} in each"),
    ):
        with pytest.raises(AudioLDMError, match=words):
            recipes.build(recipes.load("personal/textual_inversion", [*settings, override]))
    for override in ("task.clips=1", "task.keep=0", "task.keep=1"):
        with pytest.raises(AudioLDMError, match=override.removeprefix("task.")):
            recipes.build(recipes.load("preference/expert", [override]))


def test_a_run_does_not_go_on_with_other_sounds(settings, command, sounds, tmp_path, capsys):
    (tmp_path / "own").mkdir()
    for path in sounds.iterdir():
        (tmp_path / "own" / path.name).write_bytes(path.read_bytes())
    words = ["train", "personal/lora", *settings, f"data.folder={tmp_path}/own"]
    assert command(*words) == 0
    assert f"--adapter {tmp_path}/run/model/adapter.safetensors" in capsys.readouterr().err
    (tmp_path / "own" / "0.wav").unlink()
    assert command(*words) == 2
    assert "changed since" in capsys.readouterr().err


@pytest.fixture
def many(tmp_path):
    """Ten clips of a second: half with a caption beside, half with names that say nothing."""
    folder = tmp_path / "many"
    folder.mkdir()
    for i in range(10):
        wave = 0.3 * torch.sin(2 * torch.pi * (200 + 40 * i) * torch.arange(16000) / 16000)
        soundfile.write(folder / f"{i}.wav", wave.numpy(), 16000)
        if i % 2:
            (folder / f"{i}.txt").write_text("a tone")
    return folder


def fine_tune(tiny_model, folder, run, *more):
    return [
        f"ref={tiny_model}", f"data.folder={folder}", f"run_dir={run}", "data.seconds=0.32", "batch_size=2",
        "batches=6", "val_every=2", "trainer.log_every_n_steps=1", "task.warmup=1", "task.lr=1e-3", *more,
    ]  # fmt: skip


def test_a_model_is_fine_tuned_from_a_folder_of_sounds_to_a_model_folder(
    tiny_model, many, command, tmp_path, capsys
):
    """Encode on first start, train, validate on held-out clips, resume without encoding again, export, generate."""
    words = fine_tune(tiny_model, many, tmp_path / "run")
    assert command("train", "finetune/audioldm", *words) == 0
    run = tmp_path / "run"
    assert f"-m {run}/model" in capsys.readouterr().err
    indices = [json.loads(path.read_text()) for path in run.glob("latents/*/index.json")]
    # a clip held out, two windows of each other
    assert sorted(index["windows"] for index in indices) == [1, 18]
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["batch"] for row in rows if "val/loss" in row] == [2, 4, 6]
    before, after = AudioLDM.from_pretrained(tiny_model), AudioLDM.from_pretrained(run / "model")
    assert after.prediction == before.prediction
    assert after.vae.config.scaling_factor == before.vae.config.scaling_factor
    assert after.hashes["vae"] == before.hashes["vae"] and after.hashes["unet"] != before.hashes["unet"]
    assert not torch.equal(after(["a tone"], seeds=[0], **QUICK), before(["a tone"], seeds=[0], **QUICK))

    heard = {at: soundfile.read(run / f"previews/batch-{at:09d}/wave_a_tone.wav")[0] for at in (0, 2, 6)}
    usual = {"seconds": 0.32, "steps": 25, "guidance": 3.0, "sampler": "dpmpp_2m", "grid": "trailing"}
    same = AudioLDM.from_pretrained(tiny_model)(["a tone"], seeds=[0], **usual)
    # 16-bit files
    torch.testing.assert_close(torch.from_numpy(heard[0]).float(), same[0].clamp(-1, 1), atol=1e-4, rtol=0)
    assert len(heard[0]) == len(heard[6]) and (heard[0] != heard[6]).any()

    stamps = {path: path.stat().st_mtime_ns for path in run.glob("latents/*/*")}
    assert command("train", "finetune/audioldm", *[w for w in words if w != "batches=6"], "batches=8") == 0
    assert {path: path.stat().st_mtime_ns for path in run.glob("latents/*/*")} == stamps
    capsys.readouterr()


def test_an_adapter_fine_tunes_from_sound_alone(tiny_model, sounds, tmp_path):
    """Names that say nothing: each window is conditioned on its own CLAP vector."""
    words = fine_tune(tiny_model, sounds, tmp_path / "run", "task.kind=lokr", "task.rank=2")
    with pytest.warns(AudioLDMWarning, match="3 of 3 clips have no caption|too few to hold one out"):
        experiment = fitted("finetune/audioldm", words)
    items = [experiment.data.train[i] for i in range(len(experiment.data.train))]
    assert all(torch.equal(item.text, item.audio) for item in items) and experiment.data.val is None
    assert read(tmp_path / "run/model/adapter.safetensors").base["unet"]


def test_overfitting_is_warned_of_once(tmp_path):
    path, trainer = tmp_path / "metrics.jsonl", SimpleNamespace(is_global_zero=True)
    callback = Overfitting(path, patience=2)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for i, loss in enumerate((1.0, 0.5, 0.6, 0.7, 0.8), 1):
            with open(path, "a") as file:
                file.write(json.dumps({"batch": 10 * i, "val/loss": loss}) + "\n")
            callback.on_validation_end(trainer, None)
    [warning] = caught
    assert "is 0.7 at batch 40, and was lowest (0.5) at batch 20" in str(warning.message)


def test_one_clip_and_clips_of_other_rates_and_lengths_are_learned_from(tiny_model, tmp_path):
    folder = tmp_path / "mixed"
    folder.mkdir()
    for i, (rate, seconds) in enumerate(((48000, 0.2), (8000, 3.0), (22050, 0.7))):
        wave = 0.3 * torch.sin(2 * torch.pi * 300 * torch.arange(int(rate * seconds)) / rate)
        soundfile.write(folder / f"tone {i}.wav", wave.numpy(), rate)
        places = {"folder": str(folder), "model": str(tiny_model), "cache": str(tmp_path / "cache")}
        with pytest.warns(AudioLDMWarning, match=f"{i + 1} clips are too few"):
            data = from_sounds(**places, seconds=0.32, windows=2, val_share=0.1, batch_size=1)
        assert len(data.train) == 2 * (i + 1) and data.val is None
        batch = next(iter(data.train_dataloader()))
        assert bool(batch.mean.isfinite().all())
