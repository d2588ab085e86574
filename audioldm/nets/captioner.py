"""A sound to words.   BLIP-2 (arXiv:2301.12597) at small size: CLAP, a Q-Former of a few queries, a small GPT-2.

B batch, N samples, T stretches of time, D width of CLAP's space, E width of its frames, Q queries, L tokens.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as nnf
from transformers import Blip2QFormerConfig, Blip2QFormerModel, GPT2Config, GPT2LMHeadModel

from audioldm.nets.clap import MelEncoder, TwoTowers, clap_digest
from audioldm.nets.folder import Component

PAD, BEGIN, END, UNKNOWN = range(4)  # places of the special tokens in every vocabulary
LONGEST = 24  # tokens of a caption, its ends among them


class TiedOutput(nn.Module):
    """The words' own table as output layer; not a weight of its own, so that no file holds the table twice."""

    def __init__(self, words: nn.Embedding) -> None:
        super().__init__()
        self.words = [words]

    def forward(self, hidden: Tensor) -> Tensor:
        return nnf.linear(hidden, self.words[0].weight)


class Captioner(Component):
    """Writes a caption of what CLAP hears, and says whether a caption and a sound belong together.

    ``vocabulary`` are the tokens of CLAP's tokenizer that it can write, the four special ones first; everything below
    counts tokens by their place in it.   ``inputs`` are D and E, E 0 for a CLAP without frames; ``layers`` those of the
    Q-Former and of the decoder, whose heads are 32 wide.   ``clap`` is the ``clap_digest`` of the CLAP that it knows.
    """

    def __init__(
        self, vocabulary: Sequence[int], inputs: Sequence[int] = (256, 1024), width: int = 160, queries: int = 8,
        layers: Sequence[int] = (2, 3), clap: str = "",
    ) -> None:  # fmt: skip
        super().__init__()
        (dim, frames), heads, many = inputs, max(1, width // 32), len(vocabulary)
        reader = Blip2QFormerConfig(
            vocab_size=many, hidden_size=width, intermediate_size=4 * width, encoder_hidden_size=width,
            num_hidden_layers=layers[0], num_attention_heads=heads, cross_attention_frequency=1,
            use_qformer_text_input=True,
        )  # fmt: skip
        writer = GPT2Config(
            vocab_size=many, n_positions=queries + LONGEST + 1, n_embd=width, n_layer=layers[1], n_head=heads,
            pad_token_id=PAD, bos_token_id=BEGIN, eos_token_id=END,
        )  # fmt: skip
        self.qformer, self.decoder = Blip2QFormerModel(reader), cast(Any, GPT2LMHeadModel(writer))
        self.decoder.lm_head = TiedOutput(self.decoder.transformer.wte)
        self.query_tokens = nn.Parameter(torch.randn(1, queries, width) * 0.02)
        self.of_vector = nn.Linear(dim, width)
        self.of_frames = nn.Sequential(nn.LayerNorm(frames), nn.Linear(frames, width)) if frames else None
        self.match = nn.Linear(width, 1)

    def sequence(self, vector: Tensor, frames: Tensor | None = None) -> Tensor:
        """What the queries look at, (B, 1 + T, width): a vector (B, D) of CLAP's space, then frames (B, T, E)."""
        first = self.of_vector(vector * vector.shape[-1] ** 0.5)[:, None]
        if frames is None or self.of_frames is None:
            return first
        return torch.cat([first, self.of_frames(frames)], dim=1)

    def prefix(self, sequence: Tensor) -> Tensor:
        """The queries' answers (B, Q, width), which the decoder goes on from."""
        queries = self.query_tokens.expand(len(sequence), -1, -1)
        return self.qformer(query_embeds=queries, encoder_hidden_states=sequence).last_hidden_state

    def logits(self, sequence: Tensor, tokens: Tensor) -> Tensor:
        """What the decoder says of ``tokens[:, 1:]``, each from those before it: (B, L - 1, vocabulary)."""
        inputs = torch.cat([self.prefix(sequence), self.decoder.transformer.wte(tokens[:, :-1])], dim=1)
        return self.decoder(inputs_embeds=inputs).logits[:, self.config.queries :]

    def matching(self, sequence: Tensor, tokens: Tensor) -> Tensor:
        """Logits (B,) that sound and caption belong together: the queries also see the words.   BLIP-2 sec. 3.2."""
        transformer, count = self.decoder.transformer, self.config.queries
        words = transformer.wte(tokens) + transformer.wpe.weight[: tokens.shape[1]]
        both = torch.cat([self.query_tokens.expand(len(tokens), -1, -1), words], dim=1)
        mask = nnf.pad((tokens != PAD).long(), (count, 0), value=1)
        answers = self.qformer(
            query_embeds=both, query_length=count, attention_mask=mask, encoder_hidden_states=sequence
        ).last_hidden_state
        return self.match(answers[:, :count].mean(1))[:, 0]

    @torch.no_grad()
    def candidates(self, sequence: Tensor, *, beams: int = 8) -> tuple[Tensor, Tensor]:
        """Captions of a beam search, likeliest first: tokens (B, beams, L), mean log-likelihoods (B, beams) in nats."""
        begin = torch.full((len(sequence), 1), BEGIN, device=sequence.device)
        inputs = torch.cat([self.prefix(sequence), self.decoder.transformer.wte(begin)], dim=1)
        result = self.decoder.generate(
            inputs_embeds=inputs, attention_mask=inputs.new_ones(inputs.shape[:2], dtype=torch.long),
            max_new_tokens=LONGEST - 1, num_beams=beams, num_return_sequences=beams, do_sample=False,
            suppress_tokens=[PAD, BEGIN, UNKNOWN], return_dict_in_generate=True, output_scores=True,
        )  # fmt: skip
        likely = inputs.new_zeros(len(sequence)) if beams == 1 else result.sequences_scores
        return result.sequences.unflatten(0, (-1, beams)), likely.unflatten(0, (-1, beams))

    def tokens(self, tokenizer: Any, texts: Sequence[str]) -> Tensor:
        """Texts as tokens (B, L) on the net's device; what the vocabulary lacks is UNKNOWN."""
        places = {token: place for place, token in enumerate(self.config.vocabulary)}
        rows = tokenizer(list(texts), truncation=True, max_length=LONGEST)["input_ids"]
        ids = [torch.tensor([places.get(token, UNKNOWN) for token in row]) for row in rows]
        return nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=PAD).to(self.device)

    def texts(self, tokenizer: Any, tokens: Tensor) -> list[str]:
        """Tokens (B, L) as texts."""
        rows = [[self.config.vocabulary[place] for place in row] for row in tokens.tolist()]
        return [text.strip() for text in tokenizer.batch_decode(rows, skip_special_tokens=True)]


def sound_features(clap: TwoTowers, wave: Tensor) -> tuple[Tensor, Tensor | None]:
    """CLAP's unit vectors (B, D) of waves (B, 1, N) at its rate, and the frames (B, T, E) of a tower that has them."""
    tower = clap.audio_encoder
    if not isinstance(tower, MelEncoder):
        return clap.embed_audio(wave, clap.rate), None
    frames = tower.frames(wave)
    return nnf.normalize(tower.pooled(frames).float(), dim=-1), frames.float()


def build_captioner(clap: TwoTowers, captions: Iterable[str], *, most: int = 4000, **sizes: Any) -> Captioner:
    """A captioner on ``clap`` with the ``most`` frequent tokens of ``captions``."""
    tokenizer, tower = clap.tokenizer, clap.audio_encoder
    special = [getattr(tokenizer, f"{name}_token_id") for name in ("pad", "bos", "eos", "unk")]
    ids = tokenizer(list(captions), add_special_tokens=False)["input_ids"]
    counts = Counter(token for row in ids for token in row)
    words = [token for token, _ in counts.most_common(most) if token not in special]
    both: Any = tower.head[0].in_features if isinstance(tower, MelEncoder) else 0  # mean and maximum
    return Captioner([*special, *words], (clap.dim, both // 2), clap=clap_digest(clap), **sizes)
