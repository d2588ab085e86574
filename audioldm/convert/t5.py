"""T5's encoder as a conditioner of AudioLDM 2 and its relatives: transformers' own names, sizes from the weights."""

from typing import Any

from audioldm.convert.rules import Rule, State, count, need, rename

PART = "T5 encoder"
LAYER = r"encoder\.block\.\d+\.layer\.\d\."
RULES = [
    Rule(r"((?:shared|encoder\.embed_tokens|encoder\.final_layer_norm)\.weight)", r"\1"),
    Rule(rf"({LAYER}SelfAttention\.(?:[qkvo]|relative_attention_bias)\.weight)", r"\1"),
    Rule(rf"({LAYER}DenseReluDense\.(?:wi|wi_0|wi_1|wo)\.weight)", r"\1"),
    Rule(rf"({LAYER}layer_norm\.weight)", r"\1"),
]


def is_t5(state: State) -> bool:
    """Whether a conditioner's keys (without ``model.``) are those of a T5 encoder."""
    return "shared.weight" in state and "encoder.block.0.layer.0.SelfAttention.q.weight" in state


def t5_config(state: State) -> dict[str, Any]:
    """``T5Config``'s arguments.   FLAN-T5 has two input matrices with a GELU gate, the first T5 one with ReLU."""
    first = "encoder.block.0.layer.0.SelfAttention."
    gated = "encoder.block.0.layer.1.DenseReluDense.wi_0.weight" in state
    wide = "encoder.block.0.layer.1.DenseReluDense." + ("wi_0.weight" if gated else "wi.weight")
    buckets, heads = need(state, f"{first}relative_attention_bias.weight", part=PART).shape
    return {
        "vocab_size": need(state, "shared.weight", part=PART).shape[0],
        "d_model": state["shared.weight"].shape[1],
        "num_layers": count(state, r"encoder\.block\.(\d+)\."),
        "num_heads": heads,
        "d_kv": need(state, f"{first}q.weight", part=PART).shape[0] // heads,
        "d_ff": need(state, wide, part=PART).shape[0],
        "relative_attention_num_buckets": buckets,
        "feed_forward_proj": "gated-gelu" if gated else "relu",
    }


def convert(state: State, *, prefix: str = "") -> State:
    """The same names, each explained; the word embeddings stand there twice."""
    renamed = rename(state, RULES, part=PART, prefix=prefix)
    renamed.setdefault("encoder.embed_tokens.weight", renamed["shared.weight"])
    return renamed
