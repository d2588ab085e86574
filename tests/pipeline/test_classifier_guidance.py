"""Classifier guidance: a real small classifier, trained by its recipe on real latents, steers what is made."""

import json

import pytest
import torch
from safetensors.torch import load_file

from audioldm.convert.reference import EMBEDDED
from audioldm.datasets.latents import LatentDataset, class_names
from audioldm.errors import AudioLDMError
from audioldm.nets.folder import load_component
from audioldm.nets.noisy_classifier import NoisyClassifier
from audioldm.pipeline.guidance import CLASSIFIER_LIMIT, GuidanceConfig, TargetClass

QUICK = {"seconds": 0.64, "steps": 6, "sampler": "ddim", "grid": "trailing"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(cache, classifier folder): the seven synthetic sounds as the embedded VAE sees them, and some of the recipe."""
    from audioldm.cli.app import run

    folder = tmp_path_factory.mktemp("classifier")
    cache = folder / "latents"
    nets = ["--vae", str(EMBEDDED / "vae"), "--clap", str(EMBEDDED)]
    assert run(["data", "encode", "synthetic", "-o", str(cache), "--seconds", "0.64", *nets]) == 0
    numbers = ["batches=80", "val_every=80", "task.lr=3e-3"]
    data = [f"data.folder={cache}", f"data.val_folder={cache}"]
    assert run(["train", "tiny/classifier", *numbers, *data, f"run_dir={folder / 'run'}"]) == 0
    return cache, folder / "run" / "model" / "classifier"


def test_it_learns_through_noise_and_knows_nothing_of_pure_noise(trained):
    cache, folder = trained
    rows = [json.loads(line) for line in (folder.parents[1] / "metrics.jsonl").read_text().splitlines()]
    right = next(row for row in rows[::-1] if "val/right_t0" in row)
    # measured .8; of seven classes chance is .14
    assert right["val/right_t0"] > 0.5
    net = load_component(folder)
    assert list(net.config.classes) == class_names(cache) and len(net.config.classes) == 7
    noise = 2.0**20 * torch.randn(8, 16, 8, 8, generator=torch.Generator().manual_seed(0))
    p = net(noise, torch.full((8,), 2.0**20)).softmax(-1)
    torch.testing.assert_close(p, p[:1].expand_as(p), atol=1e-4, rtol=0)  # x / (1 + sigma^2) is 1e-6 there
    assert load_file(folder / "diffusion_pytorch_model.safetensors").keys() == net.state_dict().keys()


@pytest.mark.parametrize("prompt", ["rain on a tin roof", ""], ids=["conditional", "unconditional"])
def test_guidance_makes_the_class_likelier(embedded, trained, prompt):
    told, empty = embedded.encode_text([prompt] * 4), embedded.encode_text([""] * 4)
    wanted = TargetClass.load(trained[1], "high tone")
    index = list(wanted.net.config.classes).index("high tone")

    def chance(guide):
        with torch.no_grad():
            made = embedded.sample(
                told, empty, seeds=[0, 1, 2, 3], guidance=1.0, guidance_config=guide, **QUICK
            )
            return wanted.net.log_prob(made, torch.full((4,), 0.05), index)

    before = chance(None)
    after = chance(GuidanceConfig(classifier=wanted, classifier_scale=20.0))
    # nats; measured 5 or more: neither prompt sounds like a tone
    assert (after - before).mean() > 1 and after.mean() > -1, (before, after)
    assert torch.equal(before, chance(GuidanceConfig(classifier=wanted, classifier_scale=0.0)))


def test_a_move_is_limited(embedded, trained):
    told = embedded.encode_text(["rain", "noise"])
    settings = {**QUICK, "steps": 1, "guidance": 1.0, "seeds": [0, 1]}
    clicks = TargetClass.load(trained[1], "clicks")
    guide = GuidanceConfig(classifier=clicks, classifier_scale=1e9)
    with torch.no_grad():
        plain = embedded.sample(told, told, **settings)
        step = embedded.sample(told, told, guidance_config=guide, **settings) - plain
    size = step.square().mean((1, 2, 3)).sqrt()
    torch.testing.assert_close(size, torch.full((2,), CLASSIFIER_LIMIT), rtol=1e-2, atol=0)


def test_the_command_line_steers_with_and_without_a_prompt(command, trained, tmp_path, capsys):
    quick = ["-o", tmp_path, "--seconds", "0.3", "--steps", "2", "--set", "figure=false"]
    settings = ("classifier=" + str(trained[1]), "class=high tone", "classifier_scale=5")
    to = [word for setting in settings for word in ("--set", f"guidance_{setting}")]
    assert command("generate", "rain", *quick, *to) == 0
    assert command("generate", *quick, *to) == 0
    capsys.readouterr()
    for name in ("rain_seed0", "high_tone_seed0"):
        settings = json.loads((tmp_path / f"{name}.json").read_text())["settings"]
        told = settings["guidance_classifier"]
        assert (told["class"], told["scale"], len(told["sha256"])) == ("high tone", 5.0, 64)


REFUSED = {
    "unknown class": (["--set", "guidance_class=cat"], "Known: clicks, falling chirp"),
    "no class": ([], "go together"),
    "negative": (
        ["--set", "guidance_class=clicks", "--set", "guidance_classifier_scale=-1"],
        "Use 0 or more",
    ),
}


@pytest.mark.parametrize(("words", "told"), REFUSED.values(), ids=REFUSED)
def test_wrong_use_is_one_clear_line(command, trained, capsys, words, told):
    assert command("generate", "rain", "--set", f"guidance_classifier={trained[1]}", *words) == 2
    err = capsys.readouterr().err
    assert told in err and err.count("\n") == 1


def test_what_does_not_fit_is_refused(embedded, trained):
    stranger = TargetClass(NoisyClassifier(["a", "b"], latent_channels=4, widths=(8, 16)), "a")
    with pytest.raises(AudioLDMError, match="knows latents of 4 channels"):
        stranger.log_prob(embedded)
    with pytest.raises(AudioLDMError, match="holds a AutoencoderKL"):
        TargetClass.load(EMBEDDED / "vae", "a")
    other = TargetClass(NoisyClassifier(["a"], latent_channels=16, widths=(8, 16), encoder="0" * 64), "a")
    with pytest.warns(UserWarning, match="another encoder"):
        other.log_prob(embedded)
    with pytest.raises(AudioLDMError, match="which is not trained"):
        LatentDataset(trained[0], seed=0, classes=["clicks"])
