"""Runs inside a process whose ``audioldm`` is the original package: random weights in, its own answers out.

    python original_worker.py JOB.json      the job names a part, a size, a folder, and where the inputs are

Only calls into the original package are here; it is installed apart (make parity), because the names collide.
"""

import importlib.util
import json
import sys
import types
from pathlib import Path

import torch

SIZES = {"s": "audioldm-s-full-v2", "m": "audioldm-m-full", "l": "audioldm-l-full"}


def shared(name: str):
    """A module of tests/convert, by its path."""
    path = Path(__file__).parents[1] / "convert" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def settings(size: str) -> dict:
    from audioldm.utils import default_audioldm_config

    return default_audioldm_config(SIZES[size])["model"]["params"]


def without_hub() -> None:
    """RoBERTa's architecture with random weights, and no download, where the original names roberta-base."""
    import transformers

    config = transformers.RobertaConfig(
        vocab_size=50265, max_position_embeddings=514, type_vocab_size=1, layer_norm_eps=1e-5, pad_token_id=1
    )
    transformers.RobertaModel.from_pretrained = classmethod(lambda cls, *a, **k: cls(config))


def clap_model(amodel: str):
    from audioldm.clap.open_clip import create_model

    without_hub()
    model, config = create_model(
        amodel, "roberta", "", precision="fp32", device="cpu", enable_fusion=False, fusion_type="aff_2d"
    )
    return lively_clap(model.eval()), config


def lively_clap(model):
    """Random weights for both towers, and statistics for the batch norm of the mel (dB)."""
    enliven(model, seed=3)
    g = torch.Generator().manual_seed(4)
    bn = model.audio_branch.bn0
    bn.running_mean.copy_(-20 + 5 * torch.randn(64, generator=g))
    bn.running_var.copy_(100 + 50 * torch.rand(64, generator=g))
    return model


def run_unet(job: dict, inputs: dict) -> tuple[dict, dict]:
    from audioldm.latent_diffusion.openaimodel import UNetModel

    net = UNetModel(**settings(job["size"])["unet_config"]["params"]).eval()
    enliven(net, seed=0)
    out = net(inputs["x"], timesteps=inputs["t"], y=inputs["film"])
    return prefixed(net.state_dict(), "model.diffusion_model."), {"out": out}


def audioldm2(*parts: str) -> None:
    """AudioLDM 2's package without its __init__, which loads far more than one net; and so of ``parts`` in it."""
    root = next(p for p in (Path(q, "audioldm2") for q in sys.path) if p.is_dir())
    for name in ("", *parts):
        package = types.ModuleType(".".join(filter(None, ("audioldm2", name))))
        package.__path__ = [str(root.joinpath(*name.split(".")))]
        sys.modules[package.__name__] = package


def run_generator(job: dict, inputs: dict) -> tuple[dict, dict]:
    """AudioLDM 2's generator of audio tokens at its published size, from CLAP's vector and T5's tokens."""
    import transformers

    transformers.GPT2Config.from_pretrained = classmethod(lambda cls, *a, **k: cls())
    audioldm2()
    from audioldm2.audiomae_gen.sequence_input import Sequence2AudioMAE

    net = Sequence2AudioMAE(
        base_learning_rate=2e-4,
        sequence_gen_length=8,
        sequence_input_key=["film_clap_cond1", "crossattn_flan_t5"],
        sequence_input_embed_dim=[512, 1024],
        cond_stage_config={},
    ).eval()
    enliven(net, seed=0, gain=0.5)
    condition = {
        "film_clap_cond1": inputs["film"],
        "crossattn_flan_t5": [inputs["tokens"], inputs["mask"].float()],
    }
    out, _ = net.generate(None, cond_dict=condition)
    return prefixed(net.state_dict(), "cond_stage_models.0."), {"out": out}


def run_vocoder48(job: dict, inputs: dict) -> tuple[dict, dict]:
    """The 48 kHz vocoder in its two classes, that of generating and that of training, which pad otherwise."""
    audioldm2("utilities")
    from audioldm2 import hifigan
    from audioldm2.utilities.model import get_vocoder_config_48k

    config = hifigan.AttrDict(get_vocoder_config_48k())
    net, other = hifigan.Generator_old(config).eval(), hifigan.Generator(config).eval()
    for one in (net, other):
        one.remove_weight_norm()
    enliven(net, seed=1)
    other.load_state_dict(net.state_dict())
    mel = inputs["mel"][:, 0].transpose(1, 2)
    return net.state_dict(), {"generating": net(mel), "training": other(mel)}


def run_unet2(job: dict, inputs: dict) -> tuple[dict, dict]:
    """AudioLDM 2's U-Net."""
    audioldm2()
    from audioldm2.latent_diffusion.modules.diffusionmodules.openaimodel import UNetModel

    known = settings("s")["unet_config"]["params"]
    params = {key: value for key, value in known.items() if not key.startswith("extra_film")}
    net = UNetModel(
        **params,
        context_dim=job["contexts"],
        transformer_depth=job["depth"],
        extra_film_condition_dim=job["film"],
    ).eval()
    enliven(net, seed=0)
    out = net(
        inputs["x"],
        timesteps=inputs["t"],
        y=inputs["film"] if job["film"] else None,
        context_list=[inputs[f"tokens{i}"] for i, width in enumerate(job["contexts"]) if width],
        context_attn_mask_list=[inputs[f"mask{i}"] for i, width in enumerate(job["contexts"]) if width],
    )
    return prefixed(net.state_dict(), "model.diffusion_model."), {"out": out}


def run_vae(job: dict, inputs: dict) -> tuple[dict, dict]:
    from audioldm.variational_autoencoder.autoencoder import AutoencoderKL

    params = settings("s")["first_stage_config"]["params"]
    net = AutoencoderKL(**params).eval()
    enliven(net, seed=1)
    posterior = net.encode(inputs["mel"])
    mel = net.decode(inputs["z"])
    wave = net.vocoder(inputs["mel"][:, 0].transpose(1, 2))
    return net.state_dict(), {"mean": posterior.mean, "std": posterior.std, "mel": mel, "wave": wave}


def run_clap(job: dict, inputs: dict) -> tuple[dict, dict]:
    from audioldm.clap.training.data import get_audio_features

    model, config = clap_model(job["size"])
    tokens = {"input_ids": inputs["ids"], "attention_mask": inputs["mask"]}
    text = model.get_text_embedding(tokens)
    sounds = [
        get_audio_features(
            {},
            wave[: int(n)],
            480000,
            data_truncating="fusion",
            data_filling="repeatpad",
            audio_cfg=config["audio_cfg"],
        )
        for wave, n in zip(inputs["waves"], inputs["lengths"], strict=True)
    ]
    return model.state_dict(), {"text": text, "audio": model.get_audio_embedding(sounds)}


def run_laion(job: dict, inputs: dict) -> tuple[dict, dict]:
    """LAION's own package through its own calls: texts and waves in, embeddings out."""
    import transformers

    tokenizer = transformers.RobertaTokenizer.from_pretrained(job["tokenizer"])
    for name in (
        "RobertaTokenizer",
        "BertTokenizer",
        "BartTokenizer",
    ):  # it downloads all three when imported
        getattr(transformers, name).from_pretrained = classmethod(lambda cls, *a, **k: tokenizer)
    without_hub()
    from laion_clap import CLAP_Module

    clap = CLAP_Module(enable_fusion=False, device="cpu", amodel=job["size"])
    lively_clap(clap.model)
    waves = [wave[: int(n)].numpy() for wave, n in zip(inputs["waves"], inputs["lengths"], strict=True)]
    answers = {
        "text": clap.get_text_embedding(job["texts"], use_tensor=True),
        "audio": torch.from_numpy(clap.get_audio_embedding_from_data(waves, use_tensor=False)),
    }
    return prefixed(clap.model.state_dict(), "module."), answers


def run_whole(job: dict, inputs: dict) -> tuple[dict, dict]:
    """The whole of generating: prompt, guidance, DDIM under the moving average, decoding, vocoding."""
    import transformers

    tokenizer = transformers.RobertaTokenizer.from_pretrained(job["tokenizer"])
    transformers.RobertaTokenizer.from_pretrained = classmethod(lambda cls, *a, **k: tokenizer)
    without_hub()
    from audioldm.latent_diffusion.ddim import DDIMSampler
    from audioldm.latent_diffusion.ema import LitEma
    from audioldm.ldm import LatentDiffusion

    DDIMSampler.register_buffer = lambda self, name, value: setattr(self, name, value)  # its own needs CUDA
    params = settings(job["size"])
    params["device"], params["cond_stage_key"] = "cpu", "text"
    model = LatentDiffusion(**params).eval()
    clap = model.cond_stage_model
    clap.embed_mode, clap.unconditional_prob = "text", 0.0  # its dropout would act while generating
    enliven(model.model, seed=7)
    model.model_ema = LitEma(model.model)  # the average is of other weights than the raw ones below
    enliven(model.model, seed=0)
    enliven(model.first_stage_model, seed=1)
    lively_clap(clap.model)
    model.scale_factor.fill_(0.9227914214134216)
    model.latent_t_size = inputs["x"].shape[2]
    with model.ema_scope():
        condition = model.get_learned_conditioning([job["prompt"]])
        empty = clap.get_unconditional_condition(1)
        x, _ = model.sample_log(
            cond=condition, batch_size=1, ddim=True, ddim_steps=job["steps"], eta=0.0, x_T=inputs["x"],
            unconditional_guidance_scale=job["guidance"], unconditional_conditioning=empty,
        )  # fmt: skip
        mel = model.decode_first_stage(x)
        wave = model.mel_spectrogram_to_waveform(mel)
    return model.state_dict(), {"latent": x, "mel": mel, "wave": torch.from_numpy(wave)}


if __name__ == "__main__":
    job = json.loads(Path(sys.argv[1]).read_text())
    torch.set_num_threads(1)
    torch.manual_seed(0)
    tables = shared("originals")
    enliven, prefixed = tables.enliven, tables.prefixed
    folder = Path(job["folder"])
    inputs = torch.load(folder / "inputs.pt", weights_only=True)
    with torch.no_grad():
        state, answers = globals()[f"run_{job['part']}"](job, inputs)
    torch.save({"state_dict": state}, folder / "original.ckpt")
    torch.save(answers, folder / "answers.pt")
