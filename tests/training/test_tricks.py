"""Micro-conditioning, refiners, offset noise, learned variances and preferences, from sounds to sound, on toy nets."""

import json
import math
from dataclasses import replace

import pytest
import soundfile
import torch

from audioldm import recipes
from audioldm.control.controls import MicroControl, parse_facts
from audioldm.control.nets import UNITS, MicroConditioning
from audioldm.datasets.check import check
from audioldm.datasets.latents import Encoded, LatentDataset, collate_latents, write_latents
from audioldm.datasets.manifest import Row, read, write
from audioldm.errors import AudioLDMError
from audioldm.nets.folder import read_json
from audioldm.nets.unet import learns_variance
from audioldm.pipeline.audioldm import AudioLDM
from audioldm.pipeline.guidance import GuidanceConfig
from audioldm.training.preference import REFUSED, reward

QUICK = {"seconds": 0.32, "steps": 2}


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """Three short tones of other rates, one of them cut off."""
    folder = tmp_path_factory.mktemp("sounds")
    for i, rate in enumerate((22050, 8000, 16000)):
        wave = torch.sin(2 * torch.pi * (300 + 10 * i) * torch.arange(rate // 2) / rate)
        wave = (3 * wave).clamp(-1, 1) if i == 2 else 0.3 * wave
        soundfile.write(folder / f"{i}.wav", wave.numpy(), rate)
        (folder / f"{i}.txt").write_text(f"tone {i}")
    return folder


@pytest.fixture
def built(tiny_model, sounds, tmp_path):
    """A recipe for a run of a moment."""

    def build(name, *overrides):
        words = [
            f"data.model={tiny_model}", f"data.folder={sounds}", f"run_dir={tmp_path}/run", "data.val_share=0",
            "batches=3", "batch_size=3", "val_every=10", "data.seconds=0.32", "data.windows=2", "task.warmup=1",
            "trainer.log_every_n_steps=1", "callbacks.ema.decay=null", *overrides,
        ]  # fmt: skip
        return recipes.build(recipes.load(name, words), fresh=True)

    return build


@pytest.fixture
def fit(built, tmp_path):
    """Run a recipe for a moment; returns its module and its model."""

    def fitted(name, *overrides):
        experiment = built(name, *overrides)
        experiment.fit()
        return experiment.module, tmp_path / "run" / "model"

    return fitted


def test_facts_are_measured_and_travel_from_files_to_batches(sounds, tmp_path):
    rows = check([Row(str(sounds / f"{i}.wav"), ("x",)) for i in range(3)]).rows
    assert [row.rate for row in rows] == [22050, 8000, 16000]
    assert rows[0].clipping == rows[1].clipping == 0 < rows[2].clipping
    again = read(write(rows, tmp_path / "rows.jsonl"))
    assert [(row.rate, row.clipping) for row in again] == [(row.rate, row.clipping) for row in rows]


def test_micro_conditioning_learns_is_exported_and_can_be_asked_for(fit, tiny_model, tmp_path, command):
    module, folder = fit("sdxl/micro", "task.lr=1e-2")
    (place,) = [path for path in (tmp_path / "run" / "latents").iterdir() if path.is_dir()]
    facts = collate_latents([LatentDataset(place, seed=0)[i] for i in range(6)]).facts
    columns = dict(zip(UNITS, facts.T.tolist(), strict=True))
    assert set(columns["rate"]) == {22050.0, 8000.0, 16000.0}
    assert max(columns["clipping"]) > 0 and all(value < 0 for value in columns["loudness"])
    assert module.micro.config.usual == facts.abs().median(0).values.tolist()
    pipe = AudioLDM.from_pretrained(folder)
    (control,) = pipe.controls
    assert control.net.outside.weight.abs().max() > 0
    # stock diffusers cannot add facts
    assert read_json(folder / "model_index.json")["_class_name"] == "AudioLDM"
    usual = pipe(["tone 0"], seeds=[0], **QUICK)
    other = replace(pipe, controls=(MicroControl(control.net, {"rate": 8000.0, "clipping": 0.5}),))
    assert not torch.equal(other(["tone 0"], seeds=[0], **QUICK), usual)
    words = ["generate", "tone 0", "-m", folder, "--seconds", 0.32, "--steps", 2, "--micro", "rate=8000"]
    assert command(*words, "-o", tmp_path / "out", "--micro", "clipping=0.5") == 0
    (sidecar,) = (tmp_path / "out").glob("*.json")
    facts = json.loads(sidecar.read_text())["settings"]["controls"]
    assert facts == [{"facts": {"rate": 8000.0, "clipping": 0.5}}]
    assert command("generate", "tone", "-m", tiny_model, "--micro", "rate=8000", "-o", tmp_path / "no") == 2
    pipe.save_pretrained(tmp_path / "copy")
    assert torch.equal(AudioLDM.from_pretrained(tmp_path / "copy")(["tone 0"], seeds=[0], **QUICK), usual)


def test_an_untrained_micro_net_changes_nothing_and_wrong_facts_are_refused(tiny_model):
    pipe = AudioLDM.from_pretrained(tiny_model)
    more = replace(pipe, controls=(MicroControl(MicroConditioning(16), {}),))
    assert torch.equal(more(["a"], seeds=[0], **QUICK), pipe(["a"], seeds=[0], **QUICK))
    for text in ("rate", "rate=x", "rate=nan", "colour=3"):
        with pytest.raises(AudioLDMError, match="is no fact"):
            parse_facts([text])


def test_latents_without_facts_are_refused_for_micro(built, tmp_path):
    experiment = built("sdxl/micro")
    items = [experiment.data.train[i] for i in range(3)]
    windows = [Encoded(item.mean, item.std, item.audio, item.text[None], "x") for item in items]
    write_latents(windows, tmp_path / "old", about={"key": "k"})
    experiment.data.train = LatentDataset(tmp_path / "old", seed=0)
    assert collate_latents([experiment.data.train[i] for i in range(2)]).facts is None
    with pytest.raises(AudioLDMError, match="does not say what its windows were cut from"):
        experiment.fit()


def test_a_refiner_learns_low_levels_and_takes_over_there(fit, tiny_model):
    module, folder = fit("sdxl/refiner", "task.lr=1e-2")
    module.offset_noise = 0.5
    batch = collate_latents([module.trainer.datamodule.train[0]] * 400)
    _, t, noise, _ = module.draw(batch, module.batch_generator(), drop=0.0)
    assert int(t.max()) < 200
    # what a channel has in common adds to the variance
    assert noise.mean((2, 3)).var() == pytest.approx(0.25 + 1 / noise[0, 0].numel(), rel=0.15)
    assert noise.var() == pytest.approx(1.25, rel=0.05)
    pipe, refiner = AudioLDM.from_pretrained(tiny_model), AudioLDM.from_pretrained(folder)
    many = {"seconds": 0.32, "steps": 10}
    plain = pipe(["a"], seeds=[0], **many)
    same = GuidanceConfig(refiner=AudioLDM.from_pretrained(tiny_model))
    assert torch.equal(pipe(["a"], seeds=[0], guidance_config=same, **many), plain)
    config = GuidanceConfig(refiner=refiner, refine=0.3)
    assert not torch.equal(pipe(["a"], seeds=[0], guidance_config=config, **many), plain)
    assert config.settings()["refiner"]["refine"] == 0.3
    early = GuidanceConfig(refiner=refiner, refine=1e-6)
    assert torch.equal(pipe(["a"], seeds=[0], guidance_config=early, **many), plain), "no level is so low"


def test_learned_variance_is_trained_stored_and_costs_fewer_bits(fit, tiny_model, tmp_path, command, capsys):
    _, folder = fit("finetune/learned_variance", "batches=60", "task.lr=3e-3", "task.drop=0")
    pipe = AudioLDM.from_pretrained(folder)
    assert learns_variance(pipe.unet) and pipe.unet.config.out_channels == 8
    assert pipe(["tone 0"], seeds=[0], **QUICK).isfinite().all()
    (latents,) = [path for path in (tmp_path / "run" / "latents").iterdir() if path.is_dir()]
    assert command("evaluate", "bits", latents, "-m", folder, "--windows", 4, "--times", 60, "--json") == 0
    table = json.loads(capsys.readouterr().out)["bits_per_dimension"]
    bits = {name: row["bits"] for name, row in table.items()}
    # so bad a net needs more than beta, the most that can be said: it is on its way there from halfway
    assert bits["fixed large"] < bits["learned"] < (bits["fixed small"] + bits["fixed large"]) / 2
    assert command("evaluate", "bits", latents, "-m", tiny_model, "--windows", 2, "--times", 4) == 0
    assert "learned" not in capsys.readouterr().out
    with pytest.raises(AudioLDMError, match="leaves the U-Net as it is"):
        fit("personal/lora", "task.learned_variance=true")


@pytest.mark.parametrize("method", ["expert", "dpo"])
def test_preferences_are_drawn_once_scored_and_learned(method, fit, tmp_path):
    name = "preference/expert" if method == "expert" else "preference/dpo"
    small = ["task.captions=2", "task.clips=3", "task.keep=0.4"]
    module, folder = fit(name, *small)
    rewards, best = module.sounds["rewards"], module.sounds["best"]
    assert rewards.shape == (2, 3) and best.shape[:2] == (2, 1)
    vectors = module.sounds["text"].repeat_interleave(1, 0)
    waves = module.pipe.decode(best[:, 0], seconds=0.32)
    before = AudioLDM.from_pretrained(module.model)
    torch.testing.assert_close(reward(before, waves, vectors), rewards.amax(1), atol=1e-3, rtol=0)
    assert reward(before, torch.zeros_like(waves), vectors).tolist() == [REFUSED] * 2
    assert reward(before, torch.ones_like(waves), vectors).tolist() == [REFUSED] * 2
    moved = AudioLDM.from_pretrained(folder).unet.state_dict()
    assert any(not torch.equal(value, moved[key]) for key, value in before.unet.state_dict().items())


def test_dpo_begins_at_log_2_and_pulls_the_pair_apart(fit):
    module, _ = fit("preference/dpo", "batches=1", "task.captions=2", "task.clips=2", "task.lr=1e-30")
    batch = collate_latents([module.trainer.datamodule.train[i] for i in range(2)])
    module.unet.train()
    assert module.training_step(batch, 0)["loss"].item() == pytest.approx(math.log(2), abs=1e-3)


@pytest.mark.parametrize(
    "line", ['{"batch": 60, "train/loss": [1]}', '{"batch": 1e999, "a": 1}', '{"a": 1}', f'{{"batch": {10**400}}}',
             "{}", '{"batch": {}, "a": 1}', '{"a": ' * 3000 + "}", "{\ufffd\0}"],
)  # fmt: skip
def test_lines_that_no_training_wrote_are_left_out(line, tmp_path):
    from audioldm.training.callbacks import read_metrics

    path, rows = tmp_path / "metrics.jsonl", [{"batch": b, "train/loss": 1 / b} for b in range(1, 9)]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_text(f"{line}\n{text}\n{line}\n" + '{"batch": 60, "tr')
    assert [row for row in read_metrics(path) if row["batch"] < 1e300] == rows
