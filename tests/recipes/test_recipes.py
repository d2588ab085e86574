"""Every recipe composes and every part of it can be built; every part of conf/ is used by a recipe."""

import json
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from audioldm import recipes
from audioldm.errors import AudioLDMError

CONF, RECIPES = recipes.find_root()
NETS = ("vae", "vocoder", "unet", "discriminator")


def test_the_recipes_are_found_and_have_headlines():
    parts = ("vae", "vocoder", "clap")
    sets = {
        "audiocaps": (*parts, "ldm_s", "ldm_m", "ldm_l", "ldm_cross_t5"),
        "esc50": (*parts, "ldm"),
        "opensounds": (*parts, "ldm"),
        "tiny": (*parts, "ldm"),
    }
    wanted = {f"{group}/{part}" for group, members in sets.items() for part in members}
    assert wanted <= set(recipes.names())
    for name in recipes.names():
        assert len(recipes.headline(name)) > 20, name
    for name in wanted:
        text = recipes.recipe_text(name)
        assert 13 <= len(text.splitlines()) <= 40, name
        for part in (f"#   audioldm train {name}", "# Needs:", "# Cost:", "# Expect:"):
            assert part in text, (name, part)


@pytest.mark.parametrize(("size", "millions"), [("s", 185.04), ("m", 415.95), ("l", 739.14)])
def test_audioldm_has_its_published_sizes(size: str, millions: float):
    counts = recipes.parameters(recipes.load(f"audiocaps/ldm_{size}"))
    assert counts["unet"] / 1e6 == pytest.approx(millions, abs=0.005)


@pytest.mark.parametrize("name", recipes.names())
def test_recipe_composes_and_its_nets_build(name: str):
    cfg = recipes.load(name)
    assert cfg.recipe == name and cfg.run_dir == f"runs/{name}"
    with torch.device("meta"):
        for part in NETS:
            if part in cfg.task and not cfg.task[part]["_target_"].endswith("load_component"):
                assert sum(p.numel() for p in instantiate(cfg.task[part]).parameters()) > 0


def test_every_part_is_used_by_a_recipe():
    chosen = {"train.yaml", *(p.relative_to(CONF).as_posix() for p in (CONF / "debug").iterdir())}
    chosen |= {
        "trainer/ddp.yaml",
        "trainer/fsdp.yaml",
        "data/shards.yaml",
        "data/bucketed_manifests.yaml",
        "spec/48k_256.yaml",
        "vae/audioldm_48k.yaml",
        "vocoder/audioldm_48k.yaml",
    }  # by the user, not by a recipe
    unused = {p.relative_to(CONF).as_posix() for p in CONF.rglob("*.yaml")} - chosen
    text = "".join(p.read_text() for p in [*CONF.rglob("*.yaml"), *RECIPES.rglob("*.yaml")])
    for part in sorted(unused):
        group, choice = Path(part).parent.name, Path(part).stem
        if f"{group}: {choice}" in text or f"@{group}: {choice}" in text or f".{group}: {choice}" in text:
            unused.discard(part)
    assert not unused


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


def test_settings_that_no_net_can_have_are_one_clear_line():
    cfg = recipes.load("tiny/vae", ["task.vae.groups=7"])
    with pytest.raises(AudioLDMError) as caught:
        recipes.build(cfg)
    told = caught.value.message
    assert (
        told.startswith("tiny/vae: ") and "num_channels" in told and "task.vae" in told and "\n" not in told
    )
    cfg = recipes.load("audiocaps/clap", ["task.clap.words.width=32", "task.teachers=null", "trainer=cpu"])
    with pytest.raises(AudioLDMError, match="The words have 32 values each, the text tower is 256 wide"):
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
    settings = ["batches=1", "val_every=1", "seconds=0.32", "batch_size=2", f"run_dir={tmp_path}/run"]
    cfg = recipes.load("tiny/vae", settings)
    experiment = recipes.build(cfg)
    assert recipes.open_run(cfg, settings) == (None, [])
    experiment.trainer.fit(experiment.module, experiment.data)
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
        return recipes.build(cfg).module.vae.encoder.conv_in.weight

    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))
