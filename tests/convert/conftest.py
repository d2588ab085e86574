import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch

# tests are imported by path (importlib mode): the shared tables become a plain module
for name in ("originals", "relatives"):
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[name])


def roberta(folder: Path) -> Path:
    """A real RoBERTa tokenizer of letters and a few merges, in the two files that the published one has."""
    from tokenizers.pre_tokenizers import ByteLevel

    folder.mkdir(parents=True, exist_ok=True)
    merges = ["d o", "do g", "r a", "Ġ b"]
    pieces = [
        "<s>", "<pad>", "</s>", "<unk>", *sorted(ByteLevel.alphabet()), *(m.replace(" ", "") for m in merges), "<mask>",
    ]  # fmt: skip
    (folder / "vocab.json").write_text(json.dumps({piece: i for i, piece in enumerate(pieces)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    return folder


@pytest.fixture(scope="session")
def vocabulary(tmp_path_factory) -> Path:
    return roberta(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="session")
def pipe(vocabulary):
    """AudioLDM with the published classes at toy widths: U-Net (32, 64) with heads of 32, both CLAP towers."""
    from transformers import (
        ClapAudioConfig,
        ClapAudioModelWithProjection,
        ClapTextConfig,
        ClapTextModelWithProjection,
    )

    from audioldm.components import Sampling
    from audioldm.convert.folder import load_tokenizer
    from audioldm.nets.clap import TwoTowers
    from audioldm.nets.hifigan import build_hifigan
    from audioldm.nets.unet import build_unet
    from audioldm.nets.vae import build_vae
    from audioldm.pipeline.audioldm import AudioLDM
    from audioldm.spec import AudioSpec

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        tokenizer = load_tokenizer(vocabulary, 10**6)
        text = ClapTextConfig(
            vocab_size=len(tokenizer), hidden_size=64, num_hidden_layers=1, num_attention_heads=1, intermediate_size=32,
            max_position_embeddings=514, projection_dim=16, layer_norm_eps=1e-5,
        )  # fmt: skip
        audio = ClapAudioConfig(
            patch_embeds_hidden_size=8, depths=[2, 1], num_attention_heads=[1, 2], hidden_size=16, num_hidden_layers=2,
            projection_dim=16,
        )  # fmt: skip
        clap = TwoTowers(ClapTextModelWithProjection(text), tokenizer, ClapAudioModelWithProjection(audio))
        pipe = AudioLDM(
            build_unet(channels=(32, 64), latent_channels=4, layers=1, film_dim=16),
            build_vae(channels=(32, 32, 64), latent_channels=4, layers=1),
            build_hifigan(channels=32),
            clap,
            AudioSpec(latent_channels=4),
            name="toy",
            defaults=Sampling().merged(seconds=1.28, steps=4),
        )
        pipe.vae.register_to_config(scaling_factor=0.9375)
    for seed, net in enumerate((pipe.unet, pipe.vae, pipe.vocoder)):
        sys.modules["originals"].enliven(net, seed=seed)
    return pipe.to("cpu")
