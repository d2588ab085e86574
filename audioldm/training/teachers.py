"""Tables of a teacher's embeddings, made before training starts; kept in a file for machines without the teacher."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from audioldm.datasets.manifest import read
from audioldm.errors import AudioLDMError
from audioldm.nets.minilm import minilm_embeddings


def place(path: str) -> str:
    """A clip's folder and name: what stays when the data is carried to another machine.

    >>> place("/here/data/raw/esc10/dog.wav")
    'esc10/dog.wav'
    """
    return "/".join(Path(path).parts[-2:])


def text_teacher(manifests: Sequence[str], extra: Sequence[str] = ()) -> dict[str, Tensor]:
    """MiniLM's vector of every caption in the manifests, and of ``extra`` texts."""
    captions = [caption for path in manifests for row in read(path) for caption in row.captions]
    return minilm_embeddings([*captions, *extra])


def write_table(table: dict[str, Tensor], path: Path | str) -> None:
    """Keep a table as safetensors, float16: the vectors as one matrix, the keys as metadata."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    vectors = torch.stack(list(table.values())).half()
    save_file({"vectors": vectors}, path, metadata={"keys": json.dumps(list(table))})


def read_table(path: Path | str) -> dict[str, Tensor]:
    """A table that ``write_table`` kept."""
    if not Path(path).is_file():
        raise AudioLDMError(f"{path} is missing.", "Make it with recipes.embedded.start.")
    with safe_open(path, "pt") as file:
        keys, vectors = json.loads(file.metadata()["keys"]), file.get_tensor("vectors").float()
    return dict(zip(keys, vectors, strict=True))
