"""What a latent diffusion checkpoint conditions its U-Net with: CLAP, T5, AudioLDM 2's GPT-2, or something unknown.

Each is translated to transformers' names; its sizes are read from the weights.   LAION-CLAP: arXiv:2211.06687.
HTS-AT: arXiv:2202.00874.
"""

import re
from dataclasses import dataclass, field
from math import isqrt
from typing import Any

import torch

from audioldm.convert.names import below, count, need, rename, unexplained
from audioldm.errors import AudioLDMError
from audioldm.nets.folder import State

FRONT_END = re.compile(r"mel_transform\..+|unconditional_token|empty_(text_embed|hidden_state_cfg)")
"""buffers of the wrappers: CLAP's mel filters, and embeddings of the empty prompt, which are computed anew"""
AUDIOMAE = "audiomae."
"""what AudioLDM 2's GPT-2 learned to imitate; it is not needed to generate"""
GPT_HEAD = 64
"""channels of one of GPT-2's attention heads"""
GPT_PART = re.compile(
    r"(start|end)_of_sequence_tokens\.weight|input_sequence_embed_linear\.\d+\.(weight|bias)"
    r"|model\..+|cond_stage_models\..+"
)
"""AudioLDM 2's ends of sequences, its input layers, GPT-2, and conditioners of its own"""
GPT_MASK = (r"h\.\d+\.attn\.(?:masked_)?bias",)
"""the causal mask: old transformers saved it"""

BLOCK, OUR_BLOCK = "audio_branch.layers.*.blocks.*", "audio_model.audio_encoder.layers.*.blocks.*"
CLAP_NAMES = {
    "text_branch.**": "text_model.**",
    **{f"{side}_projection.0": f"{side}_projection.linear1" for side in ("text", "audio")},
    **{f"{side}_projection.2": f"{side}_projection.linear2" for side in ("text", "audio")},
    f"{BLOCK}.norm1": f"{OUR_BLOCK}.layernorm_before",
    f"{BLOCK}.norm2": f"{OUR_BLOCK}.layernorm_after",
    **{f"{BLOCK}.attn.{name}": f"{OUR_BLOCK}.attention.self.{name}" for name in ("query", "key", "value")},
    f"{BLOCK}.attn": f"{OUR_BLOCK}.attention.self",
    f"{BLOCK}.attn.proj": f"{OUR_BLOCK}.attention.output.dense",
    f"{BLOCK}.mlp.fc1": f"{OUR_BLOCK}.intermediate.dense",
    f"{BLOCK}.mlp.fc2": f"{OUR_BLOCK}.output.dense",
    **{f"audio_branch.layers.*.downsample.{n}": f"audio_model.audio_encoder.layers.*.downsample.{n}"
       for n in ("reduction", "norm")},
    **{f"audio_branch.{n}": f"audio_model.audio_encoder.{n}" for n in ("patch_embed.proj", "patch_embed.norm", "norm")},
    "audio_branch.bn0": "audio_model.audio_encoder.batch_norm",
}  # fmt: skip
CLAP_UNUSED = (
    r"text_branch\.embeddings\.position_ids",
    r"logit_scale_[at]",
    r"audio_branch\.layers\.\d+\.blocks\.\d+\.attn_mask",
    # the short-time Fourier transform, the mel filters, the classifier of AudioSet's 527 classes
    r"audio_branch\.(spectrogram_extractor|logmel_extractor|tscam_conv|head)\..+",
    # the projections of an auxiliary loss
    r"(text|audio)_transform\..+",
)


@dataclass
class Conditioners:
    """Text encoders in transformers' names with their configurations; what a file does not hold is None or empty."""

    clap: State = field(default_factory=dict)
    clap_config: dict[str, Any] | None = None
    t5: State = field(default_factory=dict)
    t5_config: dict[str, Any] | None = None
    projection: State = field(default_factory=dict)
    projection_config: dict[str, Any] | None = None
    gpt: State = field(default_factory=dict)
    gpt_config: dict[str, Any] | None = None
    unread: list[str] = field(default_factory=list)
    """the first key of every conditioner that is none of these"""

    def add_all(self, state: State, score: State) -> None:
        """Every conditioner of a whole checkpoint; CLAP from where it is for scoring, if it conditions nothing."""
        matches = (re.match(r"cond_stage_model(?:\.|s\.\d+\.)", key) for key in state)
        for prefix in sorted({match[0] for match in matches if match}):
            self.add(below(state, prefix), prefix)
        spare = below(score, "model.")
        if strange := sorted(k for k in score if not k.startswith("model.") and not FRONT_END.fullmatch(k)):
            raise unexplained("clap." + strange[0])
        if not self.clap and is_clap(spare):
            self.add_clap(spare, "clap.model.")

    def add(self, state: State, prefix: str) -> None:
        """Find out what one conditioner is and translate it."""
        part = {k: v for k, v in state.items() if not FRONT_END.fullmatch(k)}
        inner = below(part, "model.")
        if is_clap(inner) or is_t5(inner):
            if strange := sorted(k for k in part if not k.startswith("model.")):
                raise unexplained(prefix + strange[0])
            (self.add_clap if is_clap(inner) else self.add_t5)(inner, prefix + "model.")
        elif is_gpt(part):
            self.add_gpt(part, prefix)
        elif part and not all(key.startswith(AUDIOMAE) for key in part):
            self.unread.append(prefix + min(part))

    def add_clap(self, state: State, prefix: str = "") -> None:
        """Translate a CLAP in LAION's names."""
        self.clap, self.clap_config = convert_clap(state, prefix), clap_config(state)

    def add_t5(self, state: State, prefix: str) -> None:
        """Take a T5; AudioLDM 2 holds it twice, for the U-Net and for GPT-2, frozen and alike."""
        if self.t5 and not (
            state.keys() == self.t5.keys() and all(torch.equal(v, self.t5[k]) for k, v in state.items())
        ):
            raise AudioLDMError(
                f"The checkpoint has two T5 encoders that differ, the second below {prefix!r}.",
                "Both are frozen in AudioLDM 2: this is not one of its files.",
            )
        self.t5, self.t5_config = state, t5_config(state)

    def add_gpt(self, state: State, prefix: str) -> None:
        """Translate AudioLDM 2's GPT-2, the layers before it, and the conditioners inside it."""
        if strange := sorted(k for k in state if not GPT_PART.fullmatch(k)):
            raise unexplained(prefix + strange[0])
        self.projection, self.projection_config = convert_projection(state, prefix)
        inner = below(state, "model.")
        self.gpt = rename(inner, {"**": "**"}, part="GPT-2", prefix=f"{prefix}model.", drop=GPT_MASK)
        self.gpt_config = gpt_config(inner)
        matches = (re.match(r"cond_stage_models\.\d+\.", key) for key in state)
        for nested in sorted({match[0] for match in matches if match}):
            self.add(below(state, nested), prefix + nested)


def is_clap(state: State) -> bool:
    """Whether these keys are a LAION CLAP's."""
    return bool(below(state, "audio_branch.") and below(state, "text_branch."))


def clap_config(state: State) -> dict[str, Any]:
    """``ClapConfig``'s arguments for a CLAP in LAION's names.   HTSAT-tiny is 96 wide, HTSAT-base 128."""

    def size(key: str, axis: int = 0, dims: int = 2) -> int:
        return int(need(state, key, dims, part="CLAP").shape[axis])

    table = "audio_branch.layers.{}.blocks.0.attn.relative_position_bias_table"
    layers = max(1, count(state, "audio_branch.layers."))
    width = size("text_branch.embeddings.word_embeddings.weight", 1)
    audio = {
        "patch_embeds_hidden_size": size("audio_branch.patch_embed.proj.weight", dims=4),
        "depths": [count(state, f"audio_branch.layers.{i}.blocks.") for i in range(layers)],
        "num_attention_heads": [size(table.format(i), 1) for i in range(layers)],
        "num_hidden_layers": layers,
        "window_size": (isqrt(size(table.format(0))) + 1) // 2,
        "hidden_size": size("audio_branch.norm.weight", dims=1),
        "num_mel_bins": size("audio_branch.bn0.weight", dims=1),
        "enable_fusion": False,
    }
    text = {
        "vocab_size": size("text_branch.embeddings.word_embeddings.weight"),
        "hidden_size": width,
        "num_hidden_layers": count(state, "text_branch.encoder.layer."),
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


def convert_clap(state: State, prefix: str = "") -> State:
    """ClapModel's names: query, key and value are cut apart; what transformers computes itself is left out."""
    parted: State = {}
    for key, value in state.items():
        if ".attn.qkv." in key:
            for name, part in zip(("query", "key", "value"), value.chunk(3), strict=False):
                parted[key.replace(".qkv.", f".{name}.")] = part
        else:
            parted[key] = value
    return rename(parted, CLAP_NAMES, part="CLAP", prefix=prefix, drop=CLAP_UNUSED)


def is_t5(state: State) -> bool:
    """Whether a conditioner's keys (without ``model.``) are those of a T5 encoder."""
    return "shared.weight" in state and "encoder.block.0.layer.0.SelfAttention.q.weight" in state


def t5_config(state: State) -> dict[str, Any]:
    """``T5Config``'s arguments.   FLAN-T5 has two input matrices with a GELU gate, the first T5 one with ReLU."""
    first, feed = "encoder.block.0.layer.0.SelfAttention.", "encoder.block.0.layer.1.DenseReluDense."
    gated = f"{feed}wi_0.weight" in state
    buckets, heads = need(state, f"{first}relative_attention_bias.weight", 2, part="T5 encoder").shape
    words = need(state, "shared.weight", 2, part="T5 encoder")
    return {
        "vocab_size": words.shape[0],
        "d_model": words.shape[1],
        "num_layers": count(state, "encoder.block."),
        "num_heads": heads,
        "d_kv": need(state, f"{first}q.weight", 2, part="T5 encoder").shape[0] // heads,
        "d_ff": need(state, feed + ("wi_0.weight" if gated else "wi.weight"), 2, part="T5 encoder").shape[0],
        "relative_attention_num_buckets": buckets,
        "feed_forward_proj": "gated-gelu" if gated else "relu",
    }


def is_gpt(state: State) -> bool:
    """Whether a conditioner's keys are those of AudioLDM 2's GPT-2 behind CLAP and T5."""
    return {
        "start_of_sequence_tokens.weight", "end_of_sequence_tokens.weight", "model.wte.weight",
        "input_sequence_embed_linear.0.weight", "input_sequence_embed_linear.1.weight",
    } <= state.keys()  # fmt: skip


def convert_projection(state: State, prefix: str) -> tuple[State, dict[str, Any]]:
    """``AudioLDM2ProjectionModel``'s weights and arguments.

    Of the 32 begins and ends of sequences two are used: 0 for CLAP, 1 for T5.
    """

    def part(key: str, dims: int = 2) -> torch.Tensor:
        return need(state, key, dims, part="GPT-2", prefix=prefix)

    new: State = {}
    for theirs, ours in (("start", "sos_embed"), ("end", "eos_embed")):
        table = part(f"{theirs}_of_sequence_tokens.weight")
        new[ours], new[f"{ours}_1"] = table[0].clone(), table[min(1, len(table) - 1)].clone()
    for place, name in enumerate(("projection", "projection_1")):
        new[f"{name}.weight"] = part(f"input_sequence_embed_linear.{place}.weight")
        new[f"{name}.bias"] = part(f"input_sequence_embed_linear.{place}.bias", 1)
    config = {
        "text_encoder_dim": new["projection.weight"].shape[1],
        "text_encoder_1_dim": new["projection_1.weight"].shape[1],
        "langauge_model_dim": new["projection.weight"].shape[0],
    }
    return new, config


def gpt_config(state: State) -> dict[str, Any]:
    """``GPT2Config``'s arguments, from GPT-2's own keys."""
    words = need(state, "wte.weight", 2, part="GPT-2")
    return {
        "vocab_size": words.shape[0],
        "n_embd": words.shape[1],
        "n_positions": need(state, "wpe.weight", 2, part="GPT-2").shape[0],
        "n_layer": count(state, "h."),
        "n_head": max(1, words.shape[1] // GPT_HEAD),
        "n_inner": need(state, "h.0.mlp.c_fc.weight", 2, part="GPT-2").shape[1],
    }
