"""What a latent diffusion checkpoint conditions its U-Net with, in transformers' names, sizes read from the weights.

LAION-CLAP: arXiv:2211.06687.   HTS-AT: arXiv:2202.00874.   AudioLDM 2's GPT-2: arXiv:2308.05734.
"""

import re
from functools import partial
from math import isqrt
from typing import Any

import transformers
from diffusers import AudioLDM2ProjectionModel

from audioldm.convert.names import Net, Shapes, below, prefixes, rename, unexplained
from audioldm.nets.folder import State

Nets = dict[str, Net]
FRONT_END = re.compile(r"mel_transform\..+|unconditional_token|empty_(text_embed|hidden_state_cfg)")
"""buffers of the wrappers: CLAP's mel filters, and embeddings of the empty prompt, which are computed anew"""
MODEL = re.compile(r"model\..+")
AUDIOMAE = "audiomae."  # what AudioLDM 2's GPT-2 learned to imitate; it is not needed to generate
GPT_HEAD = 64  # channels of one of GPT-2's attention heads
GPT_PART = re.compile(  # AudioLDM 2's ends of sequences, its input layers, GPT-2, and conditioners of its own
    r"(start|end)_of_sequence_tokens\.weight|input_sequence_embed_linear\.\d+\.(weight|bias)"
    r"|model\..+|cond_stage_models\..+"
)
GPT_KEYS = {
    "start_of_sequence_tokens.weight", "end_of_sequence_tokens.weight", "model.wte.weight",
    "input_sequence_embed_linear.0.weight", "input_sequence_embed_linear.1.weight",
}  # fmt: skip
GPT_MASK = re.compile(r"h\.\d+\.attn\.(?:masked_)?bias")  # the causal mask: old transformers saved it
T5_KEYS = {"shared.weight", "encoder.block.0.layer.0.SelfAttention.q.weight"}

SWIN = {
    "norm1": "layernorm_before", "norm2": "layernorm_after", "attn": "attention.self",
    "attn.proj": "attention.output.dense", "mlp.fc1": "intermediate.dense", "mlp.fc2": "output.dense",
    **{f"attn.{name}": f"attention.self.{name}" for name in ("query", "key", "value")},
}  # fmt: skip
DOWN = "layers.*.downsample"
SAME = ("patch_embed.proj", "patch_embed.norm", "norm", f"{DOWN}.reduction", f"{DOWN}.norm")
SOUND, LINEAR = "audio_model.audio_encoder", {"0": "linear1", "2": "linear2"}
CLAP_NAMES = {
    "text_branch.**": "text_model.**",
    **{f"{side}_projection.{a}": f"{side}_projection.{b}" for side in ("text", "audio") for a, b in LINEAR.items()},
    **{f"audio_branch.layers.*.blocks.*.{a}": f"{SOUND}.layers.*.blocks.*.{b}" for a, b in SWIN.items()},
    **{f"audio_branch.{name}": f"{SOUND}.{name}" for name in SAME},
    "audio_branch.bn0": f"{SOUND}.batch_norm",
}  # fmt: skip
CLAP_UNUSED = (
    r"text_branch\.embeddings\.position_ids|logit_scale_[at]|audio_branch\.layers\.\d+\.blocks\.\d+\.attn_mask"
    # the short-time Fourier transform, the mel filters, the classifier of AudioSet's 527 classes
    r"|audio_branch\.(spectrogram_extractor|logmel_extractor|tscam_conv|head)\..+"
    r"|(text|audio)_transform\..+"  # the projections of an auxiliary loss
)


def all_conditioners(state: State, score: State) -> tuple[Nets, list[str]]:
    """The conditioners of a whole checkpoint and CLAP, which may only score, and the first key of each unknown one."""
    nets, unread = Nets(), list[str]()
    todo = [(place, below(state, place)) for place in prefixes(state, r"cond_stage_model(?:\.|s\.\d+\.)")]
    for place, content in todo:  # AudioLDM 2 holds the same T5 twice, for the U-Net and within GPT-2
        part = {key: value for key, value in content.items() if not FRONT_END.fullmatch(key)}
        inner = below(part, "model.")
        if is_clap(inner):
            nets |= clap_nets(known_below(part, MODEL, place), f"{place}model.")
        elif inner.keys() >= T5_KEYS:
            nets["text_encoder_2"] = t5_net(known_below(part, MODEL, place))
        elif part.keys() >= GPT_KEYS:
            nets |= gpt_nets(part, known_below(part, GPT_PART, place), place)
            todo += [(place + n, below(part, n)) for n in prefixes(part, r"cond_stage_models\.\d+\.")]
        elif part and not all(key.startswith(AUDIOMAE) for key in part):
            unread.append(place + min(part))
    scoring = known_below(score, MODEL, "clap.")
    if "text_encoder" not in nets and is_clap(scoring):
        nets |= clap_nets(scoring, "clap.model.")
    return nets, unread


def known_below(state: State, known: re.Pattern[str], prefix: str) -> State:
    """What is below ``model.``.   Raises AudioLDMError for a key beside it that is not ``known``."""
    others = (key for key in state if not known.fullmatch(key) and not FRONT_END.fullmatch(key))
    if (strange := min(others, default=None)) is not None:
        raise unexplained(prefix + strange)
    return below(state, "model.")


def is_clap(state: State) -> bool:
    return bool(below(state, "audio_branch.") and below(state, "text_branch."))


def clap_config(state: State) -> dict[str, Any]:
    """``ClapConfig``'s arguments for a CLAP in LAION's names.   HTSAT-tiny is 96 wide, HTSAT-base 128."""
    shapes = Shapes(state, "CLAP")
    size, count = shapes.size, shapes.count
    table = "audio_branch.layers.{}.blocks.0.attn.relative_position_bias_table"
    layers = max(1, count("audio_branch.layers."))
    width = size("text_branch.embeddings.word_embeddings.weight", axis=1)
    words = "text_branch.embeddings.{}_embeddings.weight"
    audio = {
        "patch_embeds_hidden_size": size("audio_branch.patch_embed.proj.weight", 4), "num_hidden_layers": layers,
        "depths": [count(f"audio_branch.layers.{i}.blocks.") for i in range(layers)],
        "num_attention_heads": [size(table.format(i), axis=1) for i in range(layers)],
        "window_size": (isqrt(size(table.format(0))) + 1) // 2, "hidden_size": size("audio_branch.norm.weight", 1),
        "num_mel_bins": size("audio_branch.bn0.weight", 1), "enable_fusion": False,
    }  # fmt: skip
    text = {
        "vocab_size": size(words.format("word")), "hidden_size": width, "num_attention_heads": max(1, width // 64),
        "num_hidden_layers": count("text_branch.encoder.layer."),
        "intermediate_size": size("text_branch.encoder.layer.0.intermediate.dense.weight"),
        "max_position_embeddings": size(words.format("position")),
        "type_vocab_size": size(words.format("token_type")),
        "layer_norm_eps": 1e-5,  # RoBERTa's, whose heads are 64 wide; transformers' default for CLAP, 1e-12, is BERT's
    }  # fmt: skip
    projection = {"projection_dim": size("text_projection.2.weight"), "projection_hidden_act": "relu"}
    return {"text_config": text, "audio_config": audio, **projection}


def convert_clap(state: State, prefix: str = "") -> State:
    """ClapModel's names: query, key and value are cut apart; what transformers computes itself is left out."""
    parted = {key: value for key, value in state.items() if ".attn.qkv." not in key}
    for key in state.keys() - parted.keys():
        names = (key.replace(".qkv.", f".{name}.") for name in ("query", "key", "value"))
        parted |= dict(zip(names, state[key].chunk(3), strict=False))
    return rename(parted, CLAP_NAMES, part="CLAP", prefix=prefix, drop=CLAP_UNUSED)


def clap_nets(state: State, prefix: str = "") -> Nets:
    whole, config, nets = convert_clap(state, prefix), clap_config(state), Nets()
    for side in ("text", "audio"):
        part = {k: v for k, v in whole.items() if k.startswith((f"{side}_model.", f"{side}_proj"))}
        nets[f"{side}_encoder"] = Net(part, partial(clap_tower, side), config)
    return nets


def clap_tower(side: str, **config: Any) -> Any:
    part = getattr(transformers.ClapConfig(**config), f"{side}_config")
    return getattr(transformers, f"Clap{side.title()}ModelWithProjection")(part)


def t5_net(state: State) -> Net:
    """A T5 encoder.   FLAN-T5 has two input matrices with a GELU gate, the first T5 one with ReLU."""
    shapes = Shapes(state, "T5 encoder")
    first, feed = "encoder.block.0.layer.0.SelfAttention.", "encoder.block.0.layer.1.DenseReluDense."
    gated = f"{feed}wi_0.weight" in state
    buckets, heads = shapes.tensor(f"{first}relative_attention_bias.weight", 2).shape
    config = {
        "vocab_size": shapes.size("shared.weight"), "d_model": shapes.size("shared.weight", axis=1),
        "num_layers": shapes.count("encoder.block."), "num_heads": heads,
        "d_kv": shapes.size(f"{first}q.weight") // heads, "relative_attention_num_buckets": buckets,
        "d_ff": shapes.size(feed + ("wi_0.weight" if gated else "wi.weight")),
        "feed_forward_proj": "gated-gelu" if gated else "relu",
    }  # fmt: skip
    return Net(state, lambda **c: transformers.T5EncoderModel(transformers.T5Config(**c)), config)


def gpt_nets(state: State, inner: State, prefix: str) -> Nets:
    """AudioLDM 2's GPT-2 and the layers before it; of 32 begins and ends two are used: 0 for CLAP, 1 for T5."""
    shapes, new = Shapes(state, "GPT-2", prefix), State()
    for theirs, ours in (("start", "sos_embed"), ("end", "eos_embed")):
        table = shapes.tensor(f"{theirs}_of_sequence_tokens.weight", 2)
        new[ours], new[f"{ours}_1"] = table[0].clone(), table[min(1, len(table) - 1)].clone()
    for place, name in enumerate(("projection", "projection_1")):
        for leaf, dims in (("weight", 2), ("bias", 1)):
            new[f"{name}.{leaf}"] = shapes.tensor(f"input_sequence_embed_linear.{place}.{leaf}", dims)
    (width, clap_dim), t5_dim = new["projection.weight"].shape, new["projection_1.weight"].shape[1]
    before = {"text_encoder_dim": clap_dim, "text_encoder_1_dim": t5_dim, "langauge_model_dim": width}
    shapes = Shapes(inner, "GPT-2")
    width = shapes.size("wte.weight", axis=1)
    config = {
        "vocab_size": shapes.size("wte.weight"), "n_embd": width, "n_positions": shapes.size("wpe.weight"),
        "n_layer": shapes.count("h."), "n_head": max(1, width // GPT_HEAD),
        "n_inner": shapes.size("h.0.mlp.c_fc.weight", axis=1),
    }  # fmt: skip
    gpt = {key: value for key, value in inner.items() if not GPT_MASK.fullmatch(key)}
    return {
        "projection_model": Net(new, AudioLDM2ProjectionModel, before),
        "language_model": Net(gpt, lambda **c: transformers.GPT2Model(transformers.GPT2Config(**c)), config),
    }
