"""A real model at toy widths: AudioLDM's own classes with random weights of a fixed seed."""

from pathlib import Path

import torch

PROMPTS = [
    "a dog barking",
    "rain on a tin roof",
    "church bells",
    "waves on a beach",
    "a rooster",
    "noise",
    "",
]


def write(folder: Path) -> Path:
    """Write the model to ``folder``, and return it."""
    from audioldm.components import Sampling
    from audioldm.nets.clap import MelEncoder, TwoTowers, build_text_encoder, train_tokenizer
    from audioldm.nets.hifigan import build_hifigan
    from audioldm.nets.unet import build_unet
    from audioldm.nets.vae import build_vae
    from audioldm.pipeline.audioldm import AudioLDM
    from audioldm.spec import AudioSpec

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        tokenizer = train_tokenizer(PROMPTS, size=200)
        text = build_text_encoder(tokenizer, width=16, layers=1, heads=2, dim=16)
        clap = TwoTowers(text, tokenizer, MelEncoder(widths=(8, 8), dim=16, hidden=16))
        vae = build_vae(channels=(8, 8, 16), latent_channels=4, layers=1, groups=4)
        unet = build_unet(
            channels=(16, 32), latent_channels=4, layers=1, head_channels=8, film_dim=16, groups=4
        )
        vocoder = build_hifigan(channels=32, kernels=(3,), dilations=((1, 3),))
        for layer in vocoder.modules():  # transformers starts these so small that the sound would be silence
            if isinstance(layer, torch.nn.Conv1d | torch.nn.ConvTranspose1d):
                layer.reset_parameters()
    spec = AudioSpec(latent_channels=4)
    defaults = Sampling(1.28, 4, "ddim", "leading", 2.0)
    pipe = AudioLDM(unet, vae, vocoder, clap, spec, name="tiny", defaults=defaults)
    pipe.save_pretrained(folder)
    return folder
