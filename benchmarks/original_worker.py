"""Runs inside a process whose ``audioldm`` is the original package: one whole generation for every line it reads.

    python original_worker.py VOCABULARY SECONDS STEPS         prints a JSON line when ready, and after every run

Only calls into the original package are here.   Random weights of the published S shape: speed does not depend on what
they are, and that ours give its sound on the same weights and noise is tested (``make parity``).
"""

import json
import sys
import time

import torch

PROMPT = "a dog barking in the distance while rain is falling on a tin roof"


def build(vocabulary: str, frames: int):
    """The original's model with its own constructor, and nothing fetched."""
    import transformers

    tokenizer = transformers.RobertaTokenizer.from_pretrained(vocabulary)
    config = transformers.RobertaConfig(
        vocab_size=50265, max_position_embeddings=514, type_vocab_size=1, layer_norm_eps=1e-5, pad_token_id=1
    )
    transformers.RobertaTokenizer.from_pretrained = classmethod(lambda cls, *a, **k: tokenizer)
    transformers.RobertaModel.from_pretrained = classmethod(lambda cls, *a, **k: cls(config))
    from audioldm.latent_diffusion.ddim import DDIMSampler
    from audioldm.ldm import LatentDiffusion
    from audioldm.utils import default_audioldm_config

    DDIMSampler.register_buffer = lambda self, name, value: setattr(self, name, value)  # its own needs CUDA
    params = default_audioldm_config("audioldm-s-full-v2")["model"]["params"]
    params["device"], params["cond_stage_key"] = "cpu", "text"
    model = LatentDiffusion(**params).eval()
    model.cond_stage_model.embed_mode, model.cond_stage_model.unconditional_prob = "text", 0.0
    model.latent_t_size = frames
    return model


@torch.no_grad()
def generate(model, frames: int, steps: int) -> None:
    """Prompt, guidance of 2.5, DDIM, decoding, vocoding."""
    condition = model.get_learned_conditioning([PROMPT])
    empty = model.cond_stage_model.get_unconditional_condition(1)
    x, _ = model.sample_log(
        cond=condition, batch_size=1, ddim=True, ddim_steps=steps, eta=0.0, x_T=torch.randn(1, 8, frames, 16),
        unconditional_guidance_scale=2.5, unconditional_conditioning=empty,
    )  # fmt: skip
    model.mel_spectrogram_to_waveform(model.decode_first_stage(x))


if __name__ == "__main__":
    answers, sys.stdout = sys.stdout, sys.stderr  # the original prints while it works
    frames, steps = round(float(sys.argv[2]) * 25), int(sys.argv[3])
    torch.manual_seed(0)
    model = build(sys.argv[1], frames)
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        generate(model, frames, steps)
        print(json.dumps({"s": time.perf_counter() - start}), file=answers, flush=True)
