"""Trains the small CLAP. text and wave -> one space. CLIP's loss (arXiv:2103.00020), teachers where there are any."""

import json
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Generator, Tensor, nn

from audioldm.batch import Batch
from audioldm.datasets.manifest import read
from audioldm.errors import AudioLDMError
from audioldm.losses.latent import cosine_distance, info_nce
from audioldm.nets.clap import TwoTowers
from audioldm.nets.minilm import minilm_embeddings
from audioldm.signal.level import normalise_peak
from audioldm.training.module import Terms, TrainingModule

Table = dict[str, Tensor]


class Teachers(nn.Module):
    """Vectors from larger nets of clips (``audio``, by ``clip_key``) and captions (``text``), and linear maps of the
    student's features to them, which are thrown away after training.
    """

    def __init__(self, dim: int, *, audio: Table | None = None, text: Table | None = None) -> None:
        super().__init__()
        self.tables = {"audio": {clip_key(k): v for k, v in (audio or {}).items()}, "text": text or {}}
        sizes = {name: len(next(iter(table.values()))) for name, table in self.tables.items() if table}
        self.maps = nn.ModuleDict({name: nn.Linear(dim, size) for name, size in sizes.items()})

    def distance(self, name: str, features: Tensor, keys: list[str]) -> Tensor:
        """1 - cos to the teacher over the rows that it knows; zero where it knows none."""
        keys = [clip_key(key) for key in keys] if name == "audio" else keys
        known = [i for i, key in enumerate(keys) if key in self.tables[name]]
        if not known:
            return features.new_zeros(())
        target = torch.stack([self.tables[name][keys[i]] for i in known]).to(features)
        return cosine_distance(self.maps[name](features[known]), target)

    def texts(self, count: int, rng: Generator) -> list[str]:
        """``count`` texts of the teacher's table, drawn at random, so that words no clip carries are learned."""
        known = list(self.tables["text"])
        places = torch.randint(len(known), (count,), generator=rng, device=rng.device)
        return [known[place] for place in places.tolist()]


class ClapTraining(TrainingModule):
    """Loss: symmetric InfoNCE (equal captions count as matches) + ``teacher_weight`` * distance to each teacher, of
    whose texts ``extra_texts`` more are learned at every batch, without a sound.
    """

    part = "clap"

    def __init__(
        self, clap: TwoTowers, *, teachers: Teachers | None = None, teacher_weight: float = 1.0,
        extra_texts: int = 0, **settings: Any,
    ) -> None:  # fmt: skip
        super().__init__(**settings)
        self.clap, self.teachers, self.teacher_weight = clap, teachers or Teachers(0), teacher_weight
        self.extra_texts = extra_texts if "text" in self.teachers.maps else 0
        # ln(1/0.07), CLIP sec. 2.5
        self.log_scale = nn.Parameter(torch.tensor(2.66))

    def training_step(self, batch: Batch, index: int) -> Terms:
        """InfoNCE(text, audio) + teacher_weight * sum over teachers of 1 - cos.   CLIP fig. 3."""
        terms, _ = self.terms(batch)
        if self.extra_texts:
            texts = self.teachers.texts(self.extra_texts, self.batch_generator())
            terms["teacher_words"] = self.teachers.distance("text", self.clap.embed_text(texts), texts)
        distances = sum(v for k, v in terms.items() if k.startswith("teacher"))
        return {"loss": terms["contrast"] + self.teacher_weight * distances, **terms}

    def terms(self, batch: Batch) -> tuple[Terms, Tensor]:
        """The loss terms, and the similarity matrix (B texts, B sounds)."""
        text, audio = self.clap.embed_text(batch.captions), self.clap.embed_audio(normalise_peak(batch.wave))
        captions, ids = batch.captions, batch.ids
        if self.rank_and_world()[1] > 1:
            # contrast needs every other sound of the batches of all processes
            every: list[Any] = [None] * self.trainer.world_size
            torch.distributed.all_gather_object(every, (captions, ids))
            captions, ids = (list(chain.from_iterable(part)) for part in zip(*every, strict=True))
            gathered: list[Any] = [self.all_gather(part, sync_grads=True) for part in (text, audio)]
            text, audio = (part.flatten(0, 1) for part in gathered)
        which = torch.tensor([*map(captions.index, captions)], device=text.device)
        same = which == which[:, None]
        terms = {"contrast": info_nce(text, audio, self.log_scale.exp().clamp(max=100), same=same)}
        for name, features, keys in (("audio", audio, ids), ("text", text, captions)):
            if name in self.teachers.maps:
                terms[f"teacher_{name}"] = self.teachers.distance(name, features, keys)
        return terms, text @ audio.T

    def on_train_start(self) -> None:
        """A teacher that knows no clip of the data comes from others; refuse to train without it unnoticed."""
        rows = getattr(getattr(self.trainer.datamodule, "train", None), "rows", ())  # type: ignore[attr-defined]
        known = self.teachers.tables["audio"]
        if known and rows and not any(clip_key(row.path) in known for row in rows):
            clips = f"the {len(rows)} training clips, such as {rows[0].path}"
            why = f"The audio teacher's table knows none of {clips}."
            raise AudioLDMError(why, "Make the table from these manifests.", code=1)
        super().on_train_start()

    def validation_step(self, batch: Batch, index: int) -> None:
        """Contrast, and how often a sound's nearest caption in the batch is its own."""
        terms, similarity = self.terms(batch)
        nearest = [batch.captions[best] for best in similarity.argmax(0).tolist()]
        right = sum(a == b for a, b in zip(nearest, batch.captions, strict=True)) / len(nearest)
        self.log_dict({"val/contrast": terms["contrast"], "val/top1": right}, batch_size=len(nearest))


def clip_key(path: str) -> str:
    """A clip's folder and name: what stays when the data is carried to another machine, such as "esc10/dog.wav"."""
    return "/".join(Path(path).parts[-2:])


def text_teacher(manifests: Sequence[str], extra: Sequence[str] = ()) -> Table:
    """MiniLM's vector of every caption in the manifests, and of ``extra`` texts."""
    captions = [caption for path in manifests for row in read(path) for caption in row.captions]
    return minilm_embeddings([*captions, *extra])


def read_table(path: Path | str) -> Table:
    """A teacher's table that ``recipes.embedded.start`` wrote: the vectors as one matrix, the keys as metadata."""
    if not Path(path).is_file():
        raise AudioLDMError(f"{path} is missing.", "Make it with recipes.embedded.start.")
    with safe_open(path, "pt") as file:
        keys, vectors = json.loads(file.metadata()["keys"]), file.get_tensor("vectors").float()
    return dict(zip(keys, vectors, strict=True))
