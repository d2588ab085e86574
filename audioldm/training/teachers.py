"""Tables of a teacher's embeddings, made before training starts."""

from collections.abc import Sequence

from torch import Tensor

from audioldm.datasets.manifest import read
from audioldm.nets.text import minilm_embeddings


def text_teacher(manifests: Sequence[str], extra: Sequence[str] = ()) -> dict[str, Tensor]:
    """MiniLM's vector of every caption in the manifests, and of ``extra`` texts."""
    captions = [caption for path in manifests for row in read(path) for caption in row.captions]
    return minilm_embeddings([*captions, *extra])
