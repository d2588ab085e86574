"""Every recipe composes and every part of it can be built; every part of conf/ is used by a recipe."""

import json
import re
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from safetensors.torch import load_file

from audioldm import recipes
from audioldm.cli.runs import summary
from audioldm.errors import AudioLDMError

CONF, RECIPES = recipes.CONF, recipes.RECIPES
NETS = ("vae", "vocoder", "unet", "discriminator")


def test_the_recipes_are_found_and_have_headlines():
    parts = ("vae", "vocoder", "clap")
    sets = {
        "audiocaps": (*parts, "ldm_s", "ldm_s_scratch", "ldm_m", "ldm_l", "ldm_cross_t5"),
        "esc50": (*parts, "ldm"),
        "opensounds": (*parts, "ldm"),
        "tiny": (*parts, "ldm"),
    }
    wanted = {f"{group}/{part}" for group, members in sets.items() for part in members}
    assert wanted <= set(recipes.names())
    for name in recipes.names():
        assert len(summary(RECIPES / f"{name}.yaml")) > 20, name
    for name in wanted:
        text = (RECIPES / f"{name}.yaml").read_text()
        assert 10 <= len(text.splitlines()) <= 45, name
        for part in (f"#   audioldm train {name}", "# Needs:", "# Cost:", "# Expect:"):
            assert part in text, (name, part)


@pytest.mark.parametrize(("size", "millions"), [("s", 185.04), ("m", 415.95), ("l", 739.14)])
def test_audioldm_has_its_published_sizes(size: str, millions: float):
    counts = recipes.parameters(recipes.load(f"audiocaps/ldm_{size}"))
    assert counts["unet"] / 1e6 == pytest.approx(millions, abs=0.005)


@pytest.mark.parametrize("name", recipes.names())
def test_recipe_composes_its_nets_build_and_its_numbers_have_ranges(name: str):
    cfg = recipes.load(name)
    for path, value in tree(cfg):
        if isinstance(value, int | float) and not isinstance(value, bool):
            assert path.startswith("data.weights.") or path.rpartition(".")[2] in recipes.RANGES, path
    assert cfg.recipe == name and cfg.run_dir == f"runs/{name}"
    with torch.device("meta"):
        for part in NETS:
            if part in cfg.task and not cfg.task[part]["_target_"].endswith("open_part"):
                assert sum(p.numel() for p in instantiate(cfg.task[part], _partial_=False).parameters()) > 0


def test_every_part_is_used_by_a_recipe():
    by_the_user = {
        "train.yaml", "ranges.yaml", "trainer/ddp.yaml", "trainer/fsdp.yaml", "data/shards.yaml",
        "data/bucketed_manifests.yaml", "spec/48k_256.yaml", "model/vae/audioldm_48k.yaml",
        "model/vocoder/audioldm_48k.yaml", "callbacks/best.yaml", "callbacks/early_stopping.yaml",
        "callbacks/rich_bar.yaml", "callbacks/timer.yaml", "logger/csv.yaml",
        "model/clap/laion.yaml", "model/vae/published.yaml", "model/vocoder/published.yaml",
    }  # fmt: skip
    by_the_user |= {p.relative_to(CONF).as_posix() for p in (CONF / "debug").iterdir()}
    unused = {p.relative_to(CONF).as_posix() for p in CONF.rglob("*.yaml")} - by_the_user
    text = "".join(p.read_text() for p in [*CONF.rglob("*.yaml"), *RECIPES.rglob("*.yaml")])
    listed = set(re.findall(r"\w+", " ".join(re.findall(r"(?:callbacks|logger): \[(.*)\]", text))))
    for part in sorted(unused):
        group, choice = Path(part).parent.name, Path(part).stem
        if f"{group}: {choice}" in text or f"@{group}: {choice}" in text or f".{group}: {choice}" in text:
            unused.discard(part)
        if group in ("callbacks", "logger") and choice in listed:
            unused.discard(part)
    assert not unused


def test_groups_have_the_names_that_hydra_users_know():
    assert {"callbacks", "data", "logger", "model", "optim", "trainer"} <= {p.name for p in CONF.iterdir()}
    cpu, gpu = (OmegaConf.load(CONF / "trainer" / f"{name}.yaml") for name in ("cpu", "gpu"))
    assert gpu.defaults[0] == "cpu" and set(gpu) == {"defaults", "accelerator", "precision"} < {
        *cpu,
        "defaults",
    }


def test_recipes_inherit_instead_of_being_copied():
    for part in ("vae", "vocoder", "clap", "ldm"):
        mine, base = (recipes.load(f"{name}/{part}") for name in ("opensounds", "esc50"))
        differ = {
            path
            for (path, a), (_, b) in zip(tree(mine), tree(base), strict=True)
            if a != b and "esc50" in str(b) and str(a) == str(b).replace("esc50", "opensounds")
        }
        assert all(path in differ or a == b for (path, a), (_, b) in zip(tree(mine), tree(base), strict=True))
        assert "collection" in differ and len(differ) > 2


def tree(cfg):
    return list(recipes.numbers(OmegaConf.to_container(cfg)))


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("batches=0", r"batches=0 is out of range\. Use a number in \[1, inf\)\."),
        ("batches=-3", "batches=-3 is out of range"),
        ("batches=2.5", "batches=2.5 is not a whole number"),
        ("task.lr=-1e-3", "task.lr=-0.001 is out of range"),
        ("task.lr=0", "task.lr=0 is out of range"),
        ("task.lr=inf", "task.lr=inf is out of range"),
        ("task.lr=nan", "task.lr=nan is out of range"),
        ("seconds=0", "seconds=0 is out of range"),
        ("batch_size=0", "batch_size=0 is out of range"),
        ("accumulate=0", "accumulate=0 is out of range"),
        ("val_every=0", "val_every=0 is out of range"),
        ("task.vae.channels=[16,0]", "task.vae.channels=0 is out of range"),
        ("seed=-1", "seed=-1 is out of range"),
        ("task.optim.floor=1.5", "task.optim.floor=1.5 is out of range"),
    ],
)
def test_numbers_out_of_range_are_one_line_before_any_work(
    override: str, words: str, command, capsys, tmp_path
):
    with pytest.raises(AudioLDMError, match=words):
        recipes.load("tiny/vae", [override])
    if override == "batches=0":
        assert command("train", "tiny/vae", override, "--dry-run", f"run_dir={tmp_path}/run") == 2
        assert capsys.readouterr().err.count("\n") == 1 and not (tmp_path / "run").exists()


def test_a_data_mix_is_replaced_on_the_command_line():
    cfg = recipes.load("embedded/vae", ["data.weights={a: 1, b/c: 2}"])
    assert OmegaConf.to_container(cfg.data.weights) == {"a": 1, "b/c": 2}
    assert recipes.load("embedded/vae", ["data.weights=null"]).data.weights is None
    assert recipes.load("esc50/vae", ["data.weights={a: 0.5}"]).data.weights == {"a": 0.5}
    assert recipes.load("embedded/vae", ["data.weights.esc10=1"]).data.weights["composed"] == 0.08
    with pytest.raises(AudioLDMError, match=r"data\.weights\.a=-1 is out of range"):
        recipes.load("embedded/vae", ["data.weights={a: -1}"])


def test_any_prompt_can_be_typed():
    prompts = [
        "a dog, barking",
        "rain (far)",
        "x=y",
        "狗在叫",
        "it's loud",
        "a: b",
        "{curly}",
        "[a",
        "100% $ure",
        "Grüße, ja",
    ]
    for prompt in prompts:
        (word,) = recipes.readable(f"data.prompt={prompt}")
        assert recipes.parsed(word).value() == prompt
    for prompt in ("it's loud", "{curly}"):
        assert recipes.load("personal/lora", [f"data.prompt={prompt}"]).data.prompt == prompt


def test_several_values_ask_for_a_sweep():
    with pytest.raises(AudioLDMError, match=r"several values.*Pass -m"):
        recipes.load("tiny/vae", ["task.lr=1e-3,3e-4"])


def test_a_sweep_trains_each_value_in_its_own_folder(command, tmp_path, capsys):
    few = [
        "batches=2",
        "val_every=2",
        "seconds=0.32",
        "batch_size=2",
        "+trainer.limit_val_batches=1",
        "task.warmup=1",
        f"run_dir={tmp_path}/sweep",
    ]
    assert command("train", "-m", "tiny/vae", "task.lr=1e-3,3e-4", *few) == 0
    folders = sorted((tmp_path / "sweep").iterdir())
    assert [f.name for f in folders] == ["task.lr=0.0003", "task.lr=0.001"]
    rates = [OmegaConf.load(folder / "config.yaml").task.lr for folder in folders]
    assert rates == [3e-4, 1e-3]
    states = [load_file(next((f / "model").rglob("*.safetensors"))) for f in folders]
    assert any(not torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert capsys.readouterr().out.splitlines()[-1] == f"{folders[0]}/model"


def test_cfg_job_prints_what_would_run(command, capsys):
    assert command("train", "tiny/vae", "--cfg", "job", "batches=7") == 0
    printed = OmegaConf.create(capsys.readouterr().out)
    assert (
        printed.batches == 7
        and printed.task.vae._target_.endswith("build_vae")
        and printed.recipe == "tiny/vae"
    )


def test_loggers_and_callbacks_are_chosen_by_name(command, tmp_path):
    words = [
        "batches=3",
        "val_every=1",
        "seconds=0.32",
        "batch_size=2",
        "trainer.log_every_n_steps=1",
        "+trainer.limit_val_batches=1",
    ]
    words += [
        "logger=[csv]",
        "callbacks=[default,early_stopping,best,timer,rich_bar]",
        f"run_dir={tmp_path}/run",
    ]
    words += [f"callbacks.{name}.monitor=val/reconstruction" for name in ("early_stopping", "best")]
    assert command("train", "tiny/vae", *words) == 0
    text = (tmp_path / "run/csv/metrics.csv").read_text()
    head = text.splitlines()[0]
    assert "train/reconstruction" in head and "speed/samples_per_s" in head and "speed/data_wait" in head
    assert "lr-AdamW" in head and "speed/peak_gb" in head
    assert (tmp_path / "run/checkpoints/best.ckpt").exists() and (
        tmp_path / "run/checkpoints/last.ckpt"
    ).exists()
    assert not (tmp_path / "run/tensorboard").exists()


def test_mistakes_are_one_clear_line():
    with pytest.raises(AudioLDMError, match=r"Unknown recipe 'tiny/vea'\. Known: .*tiny/vae"):
        recipes.load("tiny/vea")
    with pytest.raises(AudioLDMError, match="adversarial_strat"):
        recipes.load("tiny/vae", ["task.adversarial_strat=3"])
    with pytest.raises(AudioLDMError, match="manifests"):
        recipes.load("tiny/vae", ["data=manifests"])
    for word in ("batches=many", "task.lr=fast", "trainer.log_every_n_steps=1.2.3"):
        with pytest.raises(AudioLDMError, match=f"{word} is not a number"):
            recipes.load("tiny/vae", [word])
    with pytest.raises(AudioLDMError) as caught:
        recipes.load("tiny/vae", ["debug=nothing"])
    assert "one_step" in caught.value.message and "searchpath" not in caught.value.message
    overrides = ["data.folder=/no/such/cache", "trainer=cpu", "model/unet@task.unet=tiny"]
    cfg = recipes.load("audiocaps/ldm_s", overrides)
    with pytest.raises(AudioLDMError, match="no latent cache"):
        recipes.build(cfg)


def test_settings_that_no_net_can_have_are_one_clear_line(tmp_path):
    experiment = recipes.build(recipes.load("tiny/vae", ["task.vae.groups=7", f"run_dir={tmp_path}"]))
    with pytest.raises(AudioLDMError) as caught:
        experiment.fit()
    told = caught.value.message
    assert told.startswith("task.vae cannot be built: ") and "num_channels" in told and "\n" not in told
    cfg = recipes.load(
        "audiocaps/clap", ["task.clap.word_embeddings.width=32", "task.teachers=null", "trainer=cpu"]
    )
    with pytest.raises(AudioLDMError, match="The word embeddings are 32 wide, the text tower 256"):
        recipes.build(cfg)


@pytest.mark.parametrize("choice", ["ddp", "fsdp"])
def test_several_devices_are_one_word(choice: str):
    cfg = recipes.load("audiocaps/ldm_s", [f"trainer={choice}", "trainer.devices=8", "trainer.num_nodes=2"])
    assert (cfg.trainer.devices, cfg.trainer.num_nodes) == (8, 2)
    assert cfg.trainer.strategy._target_.endswith({"ddp": "DDPStrategy", "fsdp": "Sharded"}[choice])
    assert cfg.trainer.precision == "bf16-mixed" and cfg.callbacks.ema.decay == 0.9999
    with pytest.raises(AudioLDMError, match="probes one device"):
        recipes.resolve_batch_size(recipes.load("audiocaps/ldm_s", [f"trainer={choice}", "batch_size=auto"]))


def test_the_run_folder_says_what_ran(tmp_path):
    settings = [
        "batches=1",
        "val_every=1",
        "seconds=0.32",
        "batch_size=2",
        "+trainer.limit_val_batches=1",
        f"run_dir={tmp_path}/run",
    ]
    cfg = recipes.load("tiny/vae", settings)
    recipes.build(cfg, settings).fit()
    run = tmp_path / "run"
    assert OmegaConf.load(run / "config.yaml").batches == 1
    assert json.loads((run / "provenance.json").read_text())["packages"]["torch"].startswith("2.11")
    assert (run / "overrides.txt").read_text().splitlines() == settings
    events = [p.name for p in (run / "tensorboard").iterdir()]
    assert any(name.startswith("events") for name in events)
    assert (run / "checkpoints" / "last.ckpt").exists()
    assert (run / "model" / "vae" / "diffusion_pytorch_model.safetensors").exists()


def test_seed_zero_seeds(tmp_path):
    def weights(seed: int):
        cfg = recipes.load("tiny/vae", [f"seed={seed}", f"run_dir={tmp_path}"])
        module = recipes.build(cfg).module
        module.configure_model()
        return module.vae.encoder.conv_in.weight

    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))
