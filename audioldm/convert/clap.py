"""LAION-CLAP (HTS-AT and RoBERTa) to transformers' ClapModel: both towers, names and shapes.

LAION-CLAP: arXiv:2211.06687.   HTS-AT: arXiv:2202.00874.
"""

from math import isqrt
from typing import Any

import torch

from audioldm.convert.rules import Rule, State, below, count, drop, need, rename

PART = "CLAP"
ENDS = r"\.(weight|bias)"
BLOCK = r"audio_branch\.layers\.(\d+)\.blocks\.(\d+)"
OURS = r"audio_model.audio_encoder.layers.\1.blocks.\2"

RULES = [
    drop(r"text_branch\.embeddings\.position_ids", "0, 1, 2, ...: old transformers saved it"),
    Rule(r"text_branch\.(.+)", r"text_model.\1"),
    Rule(rf"(text|audio)_projection\.0{ENDS}", r"\1_projection.linear1.\2"),
    Rule(rf"(text|audio)_projection\.2{ENDS}", r"\1_projection.linear2.\2"),
    Rule(r"(logit_scale_[at])", r"\1"),
    Rule(rf"{BLOCK}\.norm1{ENDS}", rf"{OURS}.layernorm_before.\3"),
    Rule(rf"{BLOCK}\.norm2{ENDS}", rf"{OURS}.layernorm_after.\3"),
    Rule(rf"{BLOCK}\.attn\.(query|key|value){ENDS}", rf"{OURS}.attention.self.\3.\4"),
    Rule(rf"{BLOCK}\.attn\.(relative_position_\w+)", rf"{OURS}.attention.self.\3"),
    Rule(rf"{BLOCK}\.attn\.proj{ENDS}", rf"{OURS}.attention.output.dense.\3"),
    Rule(rf"{BLOCK}\.mlp\.fc1{ENDS}", rf"{OURS}.intermediate.dense.\3"),
    Rule(rf"{BLOCK}\.mlp\.fc2{ENDS}", rf"{OURS}.output.dense.\3"),
    drop(rf"{BLOCK}\.attn_mask", "computed from the window size"),
    Rule(
        r"audio_branch\.layers\.(\d+)\.downsample\.(reduction\.weight|norm\.weight|norm\.bias)",
        r"audio_model.audio_encoder.layers.\1.downsample.\2",
    ),
    Rule(rf"audio_branch\.patch_embed\.(proj|norm){ENDS}", r"audio_model.audio_encoder.patch_embed.\1.\2"),
    Rule(rf"audio_branch\.norm{ENDS}", r"audio_model.audio_encoder.norm.\1"),
    Rule(r"audio_branch\.bn0\.(\w+)", r"audio_model.audio_encoder.batch_norm.\1"),
    drop(r"audio_branch\.spectrogram_extractor\..+", "the short-time Fourier transform as a convolution"),
    drop(r"audio_branch\.logmel_extractor\..+", "the mel filters"),
    drop(r"audio_branch\.(tscam_conv|head)\..+", "the classifier of AudioSet's 527 classes"),
    drop(r"(text|audio)_transform\..+", "the projections of an auxiliary loss"),
]


def clap_config(state: State) -> dict[str, Any]:
    """``ClapConfig``'s arguments for a CLAP in LAION's names.   HTSAT-tiny is 96 wide, HTSAT-base 128."""

    def size(key: str, axis: int = 0) -> int:
        return int(need(state, key, part=PART).shape[axis])

    layer = "audio_branch.layers.{}.blocks.0.attn.relative_position_bias_table"
    layers = count(state, r"audio_branch\.layers\.(\d+)\.")
    width = size("text_branch.embeddings.word_embeddings.weight", 1)
    audio = {
        "patch_embeds_hidden_size": size("audio_branch.patch_embed.proj.weight"),
        "depths": [count(state, rf"audio_branch\.layers\.{i}\.blocks\.(\d+)\.") for i in range(layers)],
        "num_attention_heads": [size(layer.format(i), 1) for i in range(layers)],
        "num_hidden_layers": layers,
        "window_size": (isqrt(size(layer.format(0))) + 1) // 2,
        "hidden_size": size("audio_branch.norm.weight"),
        "num_mel_bins": size("audio_branch.bn0.weight"),
        "enable_fusion": False,
    }
    text = {
        "vocab_size": size("text_branch.embeddings.word_embeddings.weight"),
        "hidden_size": width,
        "num_hidden_layers": count(state, r"text_branch\.encoder\.layer\.(\d+)\."),
        "num_attention_heads": max(1, width // 64),  # RoBERTa's heads are 64 wide
        "intermediate_size": size("text_branch.encoder.layer.0.intermediate.dense.weight"),
        "max_position_embeddings": size("text_branch.embeddings.position_embeddings.weight"),
        "type_vocab_size": size("text_branch.embeddings.token_type_embeddings.weight"),
        "layer_norm_eps": 1e-5,  # RoBERTa's; transformers' default for CLAP, 1e-12, is BERT's
    }
    return {
        "text_config": text,
        "audio_config": audio,
        "projection_dim": size("text_projection.2.weight"),
        "projection_hidden_act": "relu",
    }


def convert(state: State, *, prefix: str = "") -> State:
    """ClapModel's names: query, key and value are cut apart; what transformers computes itself is added."""
    state = {key.removeprefix("module."): value for key, value in state.items()}
    parted: State = {}
    for key, value in state.items():
        if ".attn.qkv." in key:
            for name, part in zip(("query", "key", "value"), value.chunk(3), strict=True):
                parted[key.replace(".qkv.", f".{name}.")] = part
        else:
            parted[key] = value
    renamed = rename(parted, RULES, part=PART, prefix=prefix)
    places = need(renamed, "text_model.embeddings.position_embeddings.weight", part=PART).shape[0]
    renamed["text_model.embeddings.position_ids"] = torch.arange(places)[None]
    renamed["text_model.embeddings.token_type_ids"] = torch.zeros(1, places, dtype=torch.long)
    return renamed


def towers(state: State) -> tuple[State, State]:
    """The text tower and the audio tower of a ClapModel's state, each as transformers' model with a projection."""
    return tuple(  # type: ignore[return-value]
        {k: v for k, v in state.items() if k.startswith((f"{side}_model.", f"{side}_projection."))}
        for side in ("text", "audio")
    )


def is_clap(state: State) -> bool:
    """Whether these keys are a LAION CLAP's."""
    return bool(below(state, "audio_branch.") and below(state, "text_branch."))
