"""Relatives of AudioLDM at toy size with random weights, and their files in exactly the published layouts."""

import json
from dataclasses import replace
from pathlib import Path
from string import ascii_lowercase

import torch
from originals import back, clap_state, enliven, prefixed, vae_state, vocoder_state, whole
from torch import nn


def t5_text(width: int = 40, *, longest: int = 128):
    """A real T5 encoder of FLAN's kind with a real T5 tokenizer of letters."""
    from transformers import T5Config, T5EncoderModel, T5Tokenizer

    from audioldm.nets.text_encoder import T5TextEncoder

    letters = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    letters += [(letter, -3.0) for letter in ascii_lowercase] + [("▁a", -2.5), ("ing", -4.0)]
    tokenizer = T5Tokenizer(vocab=letters, extra_ids=0)
    sizes = {"d_model": width, "num_layers": 2, "num_heads": 3, "d_kv": 8, "d_ff": 20}
    model = T5EncoderModel(T5Config(vocab_size=len(tokenizer) + 5, **sizes, feed_forward_proj="gated-gelu"))
    enliven(model, seed=4)
    return T5TextEncoder(model, tokenizer, longest=longest)


def generated_text(clap, *, width: int = 48, t5_width: int = 40):
    """AudioLDM 2's generator: GPT-2 ``width`` wide behind CLAP and T5."""
    from diffusers import AudioLDM2ProjectionModel
    from transformers import GPT2Config, GPT2Model

    from audioldm.nets.text_encoder import AudioLDM2TextEncoder

    t5 = t5_text(t5_width)
    gpt = GPT2Model(
        GPT2Config(
            vocab_size=30, n_embd=width, n_positions=160, n_layer=2, n_head=max(1, width // 64), n_inner=96,
            bos_token_id=1, eos_token_id=1,
        )
    )  # fmt: skip
    projection = AudioLDM2ProjectionModel(clap.dim, t5.dim, width)
    enliven(gpt, seed=5)
    enliven(projection, seed=6)
    for name in ("sos_embed", "eos_embed", "sos_embed_1", "eos_embed_1"):
        nn.init.normal_(getattr(projection, name), generator=torch.Generator().manual_seed(len(name)))
    return AudioLDM2TextEncoder(clap, t5, projection, gpt)


def with_unet(pipe, contexts, **changes):
    """``pipe`` with a U-Net of AudioLDM 2's kind."""
    from audioldm.convert.model import SUCCESSORS
    from audioldm.nets.unet import build_unet

    film = changes.pop("film_dim", None)
    latent = changes.get("vae", pipe.vae).config.latent_channels
    unet = build_unet(
        "cross" if film is None else "film",
        contexts=contexts,
        channels=(32, 64),
        latent_channels=latent,
        layers=1,
        film_dim=film,
    )
    enliven(unet, seed=7)
    defaults = SUCCESSORS.merged(seconds=1.28, steps=4)
    return replace(pipe, unet=unet, defaults=defaults, **changes).to("cpu")


def cross(pipe):
    """AudioLDM's 16 kHz model with cross-attention on T5; its CLAP only scores."""
    return with_unet(pipe, (None, 40), token_encoder=t5_text(), name="crossattn_t5")


def two(pipe):
    """AudioLDM 2."""
    return with_unet(pipe, (None, 48, 40), token_encoder=generated_text(pipe.clap), name="audioldm2")


def high(pipe):
    """AudioLDM at 48 kHz: 256 mels, latents 8 times smaller, a vocoder with four branches."""
    from audioldm.nets.hifigan import build_hifigan
    from audioldm.nets.vae import build_vae
    from audioldm.spec import SPECS

    vae = build_vae(channels=(32, 32, 32, 64), latent_channels=16, layers=1)
    vocoder = build_hifigan(
        mels=256, rate=48000, channels=32, upsample=(6, 5, 4, 2, 2), upsample_kernels=(12, 10, 8, 4, 4),
        kernels=(3, 7, 11, 15), dilations=((1, 3, 5),) * 4,
    )  # fmt: skip
    enliven(vae, seed=1)
    enliven(vocoder, seed=2)
    vae.register_to_config(scaling_factor=0.9375)
    return with_unet(
        pipe, (None, None), film_dim=16, vae=vae, vocoder=vocoder, spec=SPECS["48k_256"], name="audioldm_48k"
    )


def tango(pipe):
    """Tango: a U-Net of Stable Diffusion 2's shape, no CLAP."""
    from audioldm.convert.model import TANGO
    from audioldm.diffusion.schedule import scaled_linear
    from audioldm.nets.clap import NoClap
    from audioldm.nets.unet import build_unet

    unet = build_unet(
        "cross", channels=(64, 64, 128), latent_channels=4, layers=1, heads=(1, 1, 2), context_dim=40,
        attention=(True, True, False), linear=True,
    )  # fmt: skip
    enliven(unet, seed=8)
    return replace(
        pipe, unet=unet, clap=NoClap(), token_encoder=t5_text(longest=512), schedule=scaled_linear(0.00085, 0.012),
        prediction="v", defaults=TANGO.merged(seconds=1.28, steps=4), name="tango",
    ).to("cpu")  # fmt: skip


def cross_state(pipe) -> dict:
    """``audioldm_16k_crossattn_t5.pth``."""
    state = whole(pipe, condition="clap.", many=2)
    return state | prefixed(pipe.token_encoder.model.state_dict(), "cond_stage_models.0.model.")


def two_state(pipe) -> dict:
    """``audioldm2-full.pth``: the generator with conditioners of its own, T5 once more, CLAP once more to score."""
    words, projection = pipe.token_encoder, pipe.token_encoder.projection.state_dict()
    tables = {
        f"{theirs}_of_sequence_tokens.weight": torch.cat(
            [projection[ours][None], projection[f"{ours}_1"][None], torch.zeros(30, len(projection[ours]))]
        )
        for theirs, ours in (("start", "sos_embed"), ("end", "eos_embed"))
    }
    layers = {
        key.replace("projection_1.", "input_sequence_embed_linear.1.").replace(
            "projection.", "input_sequence_embed_linear.0."
        ): value
        for key, value in projection.items()
        if key.startswith("projection")
    }
    gpt = prefixed(words.gpt.state_dict(), "model.")
    for i in range(2):  # transformers of then kept the causal mask
        gpt |= {f"model.h.{i}.attn.bias": torch.ones(1, 1, 160, 160).tril().bool()}
        gpt |= {f"model.h.{i}.attn.masked_bias": torch.tensor(-1e4)}
    generator = {
        **tables,
        **layers,
        **gpt,
        **prefixed(clap_state(pipe.clap), "cond_stage_models.0.model."),
        "cond_stage_models.0.mel_transform.spectrogram.window": torch.zeros(4),
        **prefixed(words.t5.model.state_dict(), "cond_stage_models.1.model."),
        "cond_stage_models.2.audiomae.model.cls_token": torch.zeros(1, 1, 8),
        "cond_stage_models.2.audiomae.model.blocks.0.attn.qkv.weight": torch.zeros(3, 1),
    }
    return {
        **whole(pipe, condition="clap.", many=3),
        **prefixed(generator, "cond_stage_models.0."),
        **prefixed(words.t5.model.state_dict(), "cond_stage_models.1.model."),
    }


def high_state(pipe) -> dict:
    """``audioldm_48k.pth``."""
    return whole(pipe, condition="cond_stage_models.0.", many=2) | prefixed(
        clap_state(pipe.clap), "clap.model."
    )


def write_tango(pipe, folder: Path) -> Path:
    """The six files of declare-lab/tango, and T5's tokenizer, which it takes from the hub."""
    folder.mkdir(parents=True)
    main = prefixed(pipe.unet.state_dict(), "unet.") | prefixed(
        pipe.token_encoder.model.state_dict(), "text_encoder."
    )
    torch.save(main, folder / "pytorch_model_main.bin")
    vae = vae_state(pipe.vae) | prefixed(vocoder_state(pipe.vocoder), "vocoder.")
    torch.save(vae, folder / "pytorch_model_vae.bin")
    torch.save({"mel_basis": torch.zeros(64, 513)}, folder / "pytorch_model_stft.bin")
    config = {
        "image_key": "fbank",
        "subband": 1,
        "embed_dim": 4,
        "scale_factor": pipe.vae.config.scaling_factor,
    }
    (folder / "vae_config.json").write_text(json.dumps(config))
    (folder / "stft_config.json").write_text(json.dumps({"filter_length": 1024, "hop_length": 160}))
    (folder / "main_config.json").write_text(
        json.dumps(
            {
                "text_encoder_name": "google/flan-t5-large",
                "scheduler_name": "stabilityai/stable-diffusion-2-1",
            }
        )
    )
    pipe.token_encoder.tokenizer.save_pretrained(folder / "tokenizer_2")
    return folder


def stock_two(pipe):
    """Stock diffusers' AudioLDM2Pipeline with the same nets; its U-Net runs 8 heads at every level, as converted."""
    from diffusers import AudioLDM2Pipeline, DDIMScheduler
    from transformers import ClapConfig, ClapModel, GPT2LMHeadModel

    clap, words = pipe.clap, pipe.token_encoder
    config = ClapConfig(
        text_config=clap.text_encoder.config.to_dict(),
        audio_config=clap.audio_encoder.config.to_dict(),
        projection_dim=clap.dim,
    )
    whole_clap = ClapModel(config).eval()
    own = {**clap.text_encoder.state_dict(), **clap.audio_encoder.state_dict()}
    whole_clap.load_state_dict({**whole_clap.state_dict(), **own})
    with torch.device("meta"):
        unet = type(pipe.unet).from_config({**pipe.unet.config, "attention_head_dim": 8})
    unet.load_state_dict(pipe.unet.state_dict(), assign=True)
    words.gpt.config.max_new_tokens = words.length
    language = GPT2LMHeadModel(words.gpt.config).eval()
    language.transformer.load_state_dict(words.gpt.state_dict())
    words.t5.tokenizer.model_max_length = words.t5.longest
    scheduler = DDIMScheduler(
        beta_start=0.0015, beta_end=0.0195, beta_schedule="scaled_linear", clip_sample=False,
        set_alpha_to_one=False, steps_offset=1,
    )  # fmt: skip
    stock = AudioLDM2Pipeline(
        vae=pipe.vae, text_encoder=whole_clap, text_encoder_2=words.t5.model, projection_model=words.projection,
        language_model=language, tokenizer=clap.tokenizer, tokenizer_2=words.t5.tokenizer,
        feature_extractor=clap.extractor, unet=unet.eval(), scheduler=scheduler, vocoder=pipe.vocoder,
    )  # fmt: skip
    stock.set_progress_bar_config(disable=True)
    return stock


__all__ = [
    "back",
    "cross",
    "cross_state",
    "high",
    "high_state",
    "stock_two",
    "tango",
    "two",
    "two_state",
    "write_tango",
]
