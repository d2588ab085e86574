"""AudioLDM 2's generator of audio tokens: its file's names to diffusers' projection and transformers' GPT-2."""

import re
from typing import Any

from audioldm.convert.rules import Rule, State, below, count, drop, need, rename

PART = "GPT-2 generator"
HEAD = 64
"""channels of one of GPT-2's attention heads"""
LAYER = r"h\.\d+\."
GPT = [
    Rule(r"(wte\.weight|wpe\.weight|ln_f\.weight|ln_f\.bias)", r"\1"),
    Rule(rf"({LAYER}(?:ln_1|ln_2|attn\.c_attn|attn\.c_proj|mlp\.c_fc|mlp\.c_proj)\.(?:weight|bias))", r"\1"),
    drop(rf"{LAYER}attn\.(?:masked_)?bias", "the causal mask: old transformers saved it"),
]
OWN = re.compile(
    r"(start|end)_of_sequence_tokens\.weight|input_sequence_embed_linear\.\d+\.(weight|bias)"
    r"|model\..+|cond_stage_models\..+"
)
"""All that belongs to the generator: its ends of sequences, its input layers, GPT-2, and conditioners of its own."""


def is_generator(state: State) -> bool:
    """Whether a conditioner's keys are those of AudioLDM 2's generator, told by CLAP and by T5."""
    return {
        "start_of_sequence_tokens.weight", "end_of_sequence_tokens.weight", "model.wte.weight",
        "input_sequence_embed_linear.0.weight", "input_sequence_embed_linear.1.weight",
    } <= state.keys()  # fmt: skip


def projection_config(state: State) -> dict[str, Any]:
    """``AudioLDM2ProjectionModel``'s arguments."""
    first, second = (state[f"input_sequence_embed_linear.{i}.weight"] for i in (0, 1))
    return {
        "text_encoder_dim": first.shape[1],
        "text_encoder_1_dim": second.shape[1],
        "langauge_model_dim": first.shape[0],
    }


def projection(state: State, *, prefix: str = "") -> State:
    """The input layers, and of the 32 begins and ends of sequences the two that are used: 0 for CLAP, 1 for T5."""
    new: State = {}
    for theirs, ours in (("start", "sos_embed"), ("end", "eos_embed")):
        table = need(state, f"{theirs}_of_sequence_tokens.weight", part=PART, prefix=prefix)
        new[ours], new[f"{ours}_1"] = table[0].clone(), table[1].clone()
    for place, name in enumerate(("projection", "projection_1")):
        for end in ("weight", "bias"):
            key = f"input_sequence_embed_linear.{place}.{end}"
            new[f"{name}.{end}"] = need(state, key, part=PART, prefix=prefix)
    return new


def gpt_config(state: State) -> dict[str, Any]:
    """``GPT2Config``'s arguments, from GPT-2's own keys."""
    words = need(state, "wte.weight", part=PART)
    return {
        "vocab_size": words.shape[0],
        "n_embd": words.shape[1],
        "n_positions": need(state, "wpe.weight", part=PART).shape[0],
        "n_layer": count(state, r"h\.(\d+)\."),
        "n_head": max(1, words.shape[1] // HEAD),
        "n_inner": need(state, "h.0.mlp.c_fc.weight", part=PART).shape[1],
    }


def gpt(state: State, *, prefix: str = "") -> State:
    """GPT-2's names, each explained."""
    return rename(below(state, "model."), GPT, part=PART, prefix=prefix + "model.")
