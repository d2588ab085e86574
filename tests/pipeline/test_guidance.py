"""Every way of guidance changes the sound as its wrapper says, through the pipeline and the command line."""

import copy
from dataclasses import replace

import pytest
import torch

from audioldm.errors import AudioLDMError
from audioldm.pipeline.audioldm import AudioLDM
from audioldm.pipeline.guidance import CLAP_LIMIT, GuidanceConfig, clap_score

QUICK = {"seconds": 0.32, "steps": 3, "sampler": "ddim", "grid": "trailing"}


def latent(pipe, guide=None, guidance=3.0, **settings):
    told = pipe.encode_text(["a dog barking", "rain on a tin roof"])
    empty = pipe.encode_text(["", ""])
    with torch.no_grad():
        return pipe.sample(
            told, empty, seeds=[0, 1], guidance=guidance, guidance_config=guide, **{**QUICK, **settings}
        )


GUIDES = {
    "rescale": GuidanceConfig(method="rescale:phi=0.7"),
    "apg": GuidanceConfig(method="apg"),
    "cfg_zero_star": GuidanceConfig(method="cfg_zero_star:zero_above=5"),
    "interval": GuidanceConfig(interval=(0.5, 3.0)),
    "threshold": GuidanceConfig(threshold=(0.9, 0.5)),
    "also": GuidanceConfig(extra_prompts=(("church bells", 2.0), ("noise", -1.0))),
    "clap": GuidanceConfig(clap=200.0),
}


@pytest.mark.parametrize("name", GUIDES)
def test_each_guide_changes_the_latent_of_each_row_by_itself(pipe, name):
    plain, guided = latent(pipe), latent(pipe, GUIDES[name])
    assert guided.isfinite().all()
    # 1e-4: float32 kernels give plain and plain again exactly; a guide that did nothing would be at 0
    assert ((guided - plain).flatten(1).abs().amax(1) > 1e-4).all()
    assert GUIDES[name].settings(), "the sidecar says so"


def test_opening_a_model_says_nothing(tiny_model, caplog):
    from diffusers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_warning()
    logging.enable_propagation()
    try:
        AudioLDM.from_pretrained(tiny_model)
    finally:
        logging.disable_propagation()
        logging.set_verbosity(level)
    assert not caplog.records


def test_plain_guide_is_classifier_free(pipe):
    assert torch.equal(latent(pipe), latent(pipe, GuidanceConfig()))
    assert GuidanceConfig().settings() == {}


def test_cfg_plus_plus_is_guidance_that_grows_along_the_grid(pipe):
    scale_0 = latent(pipe, GuidanceConfig(method="cfg_plus_plus"), guidance=0.0)
    torch.testing.assert_close(scale_0, latent(pipe, guidance=0.0))
    assert not torch.allclose(latent(pipe, GuidanceConfig(method="cfg_plus_plus"), guidance=0.6), scale_0)


def test_interval_over_everything_is_plain_and_over_nothing_is_none(pipe):
    torch.testing.assert_close(latent(pipe, GuidanceConfig(interval=(0.0, 1e9))), latent(pipe))
    torch.testing.assert_close(latent(pipe, GuidanceConfig(interval=(1e8, 1e9))), latent(pipe, guidance=1.0))


def test_autoguidance_moves_away_from_the_weak_model(pipe):
    weak = replace(pipe, name="weak", unet=copy.deepcopy(pipe.unet))
    with torch.no_grad():
        for weight in weak.unet.parameters():
            weight.mul_(0.9)
    guided = latent(pipe, GuidanceConfig(weak=weak), steps=1)
    good, bad = (latent(model, guidance=1.0, steps=1) for model in (pipe, weak))
    torch.testing.assert_close(guided, bad + 3 * (good - bad), rtol=1e-4, atol=1e-4)  # float32, other sums


def test_a_weak_model_of_other_latents_is_refused(pipe):
    vae = copy.deepcopy(pipe.vae)
    with torch.no_grad():
        vae.decoder.conv_out.bias.add_(1.0)
    stranger = replace(pipe, name="stranger", vae=vae, hashes={**pipe.hashes, "vae": "0" * 64})
    with pytest.raises(AudioLDMError, match="stranger has another vae"):
        latent(pipe, GuidanceConfig(weak=stranger))


def test_clap_gradient_raises_the_clap_score(pipe):
    told = pipe.encode_text(["a dog barking", "rain on a tin roof"])
    score = clap_score(pipe, told)
    with torch.no_grad():
        before, after = (
            score(latent(pipe, guide, guidance=1.0, steps=6)) for guide in (None, GuidanceConfig(clap=300.0))
        )
    assert (after > before + 1e-3).all(), (before, after)


def test_clap_move_is_limited(pipe):
    strong = GuidanceConfig(clap=1e9)
    step = latent(pipe, strong, guidance=1.0, steps=1) - latent(pipe, guidance=1.0, steps=1)
    assert (step.flatten(1).square().mean(1).sqrt() < 1.01 * CLAP_LIMIT).all()
