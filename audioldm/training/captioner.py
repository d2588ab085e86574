"""Trains a captioner on a CLAP that stays as it is.   BLIP-2 (arXiv:2301.12597); text alone: arXiv:2309.12242.

B batch, D width of CLAP's space.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor
from torch.nn import functional as nnf

from audioldm.batch import Batch
from audioldm.datasets.manifest import read
from audioldm.nets.captioner import PAD, UNKNOWN, Captioner, build_captioner, sound_features
from audioldm.nets.clap import TwoTowers
from audioldm.signal.level import normalise_peak
from audioldm.training.module import Terms, TrainingModule

SAME = 0.9
"""Captions whose text vectors are so near say the same: neither is a wrong caption of the other's sound."""


class CaptionerTraining(TrainingModule):
    """Loss: cross-entropy of the next token + that of whether sound and caption belong together.

    In the first ``pretrain`` batches the decoder sees vectors of texts (captions, and as many of ``texts``) for sounds,
    moved by the mean difference of the two modalities and blurred by ``noise`` times their length.   A share
    ``drop_frames`` of the batches after that has the sound's vector alone.
    """

    part = "captioner"
    gap: Tensor
    clap: TwoTowers

    def __init__(
        self, captioner: Captioner, clap: TwoTowers, *, texts: Sequence[str] = (), pretrain: int = 0,
        noise: float = 0.5, drop_frames: float = 0.3, **settings: Any,
    ) -> None:  # fmt: skip
        super().__init__(**settings)
        self.captioner, self.texts = captioner, list(texts)
        # no attribute of the module, so that no checkpoint holds it
        object.__setattr__(self, "clap", clap.requires_grad_(False))
        self.pretrain, self.noise, self.drop_frames = pretrain, noise, drop_frames
        self.register_buffer("gap", torch.zeros(clap.dim))

    def on_fit_start(self) -> None:
        super().on_fit_start()
        self.clap.to(self.device)

    def training_step(self, batch: Batch, index: int) -> Terms:
        """Captions from text alone at first, then captions and matches from sound."""
        rng = self.batch_generator()
        vector, frames, text = self.encoded(batch)
        self.gap.lerp_((vector - text).mean(0), max(0.02, 1 / self.batch_count))
        if self.batch_count <= self.pretrain:
            captions, text = self.with_more_texts(batch.captions, text, rng)
            loss = self.cross_entropy(self.captioner.sequence(self.blurred(text, rng)), captions)
            return {"loss": loss, "text_only": loss.detach()}
        dropped = bool(torch.rand((), generator=rng, device=rng.device) < self.drop_frames)
        sequence = self.captioner.sequence(vector, None if dropped else frames)
        caption = self.cross_entropy(sequence, batch.captions)
        logits, targets = self.matches(sequence, vector, text, batch.captions, rng)
        match = nnf.binary_cross_entropy_with_logits(logits, targets)
        return {"loss": caption + match, "caption": caption.detach(), "match": match.detach()}

    @torch.no_grad()
    def encoded(self, batch: Batch) -> tuple[Tensor, Tensor | None, Tensor]:
        """CLAP's vectors and frames of the sounds, and its vectors of their captions."""
        return *sound_features(self.clap, normalise_peak(batch.wave)), self.clap.embed_text(batch.captions)

    @torch.no_grad()
    def with_more_texts(self, captions: list[str], text: Tensor, rng: Generator) -> tuple[list[str], Tensor]:
        """Captions and their vectors, and as many of the texts that no sound belongs to."""
        if not self.texts:
            return captions, text
        places = torch.randint(len(self.texts), (len(captions),), generator=rng, device=rng.device)
        more = [self.texts[place] for place in places.tolist()]
        return [*captions, *more], torch.cat([text, self.clap.embed_text(more)])

    def blurred(self, text: Tensor, rng: Generator) -> Tensor:
        """Text vectors as if they were those of sounds."""
        noise = torch.randn(text.shape, generator=rng, device=rng.device).to(text)
        return nnf.normalize(text + self.gap + self.noise * text.shape[-1] ** -0.5 * noise, dim=-1)

    def cross_entropy(self, sequence: Tensor, captions: Sequence[str]) -> Tensor:
        """Of every next token that the vocabulary has, nats."""
        tokens = self.captioner.tokens(self.clap.tokenizer, captions)
        targets = tokens[:, 1:].masked_fill((tokens == UNKNOWN)[:, 1:], PAD)
        logits = self.captioner.logits(sequence, tokens).flatten(0, 1)
        return nnf.cross_entropy(logits.float(), targets.flatten(), ignore_index=PAD)

    def matches(
        self, sequence: Tensor, vector: Tensor, text: Tensor, captions: Sequence[str], rng: Generator
    ) -> tuple[Tensor, Tensor]:
        """Logits and targets (3 B,) of true pairs, of sounds with near but wrong captions, and the reverse.

        Wrong ones are drawn by their similarity, hard ones more often.   BLIP (arXiv:2201.12086) sec. 3.2.
        """
        tokens, rows = self.captioner.tokens(self.clap.tokenizer, captions), len(captions)
        wrong = (text @ text.T < SAME).float() + 1e-6 * (1 - torch.eye(rows, device=text.device))
        near = (10 * text @ vector.T).softmax(0)  # (texts, sounds)
        other_text = torch.multinomial((near * wrong).T + 1e-9 * wrong, 1, generator=rng)[:, 0]
        other_sound = torch.multinomial(near * wrong + 1e-9 * wrong, 1, generator=rng)[:, 0]
        sounds = torch.cat([sequence, sequence, sequence[other_sound]])
        logits = self.captioner.matching(sounds, torch.cat([tokens, tokens[other_text], tokens]))
        return logits, torch.cat([logits.new_ones(rows), logits.new_zeros(2 * rows)])

    def validation_step(self, batch: Batch, index: int) -> None:
        """Cross-entropy from the sound, and the share of matches and mismatches that are told apart."""
        vector, frames, text = self.encoded(batch)
        sequence = self.captioner.sequence(vector, frames)
        values = {"val/caption": self.cross_entropy(sequence, batch.captions)}
        if len(vector) > 1:
            rng = self.validation_generator(index)
            logits, targets = self.matches(sequence, vector, text, batch.captions, rng)
            values["val/match"] = ((logits > 0) == (targets > 0)).float().mean()
        self.log_dict(values, batch_size=len(vector))


def read_texts(path: str | Path) -> list[str]:
    return [line for line in Path(path).read_text(encoding="utf-8").splitlines() if line.strip()]


def from_manifests(clap: TwoTowers, manifests: list[str], texts: Sequence[str] = (), **net: Any) -> Captioner:
    """A captioner with the vocabulary of the train rows' captions and of ``texts``."""
    rows = [row for path in manifests for row in read(path, split="train")]
    return build_captioner(clap, [*(caption for row in rows for caption in row.captions), *texts], **net)
