"""What embedded/clap begins with, into data/start: the teachers' tables and a text tower that knows MiniLM's words.

    python -m recipes.embedded.start data/raw/*.jsonl
    python -m recipes.embedded.start data/raw/*.jsonl --sounds data/raw/esc10.jsonl data/raw/opensounds.jsonl

YAMNet classifies the clips of ``--sounds``, by default all: the captions of rendered sounds say enough of them.  Run
it where ``audioldm[train,eval]`` is installed; a rented machine then needs neither MiniLM nor YAMNet.
"""

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from audioldm.datasets.manifest import read
from audioldm.evaluation.embedders.yamnet import YamNet
from audioldm.nets.clap import build_small_clap
from audioldm.nets.minilm import minilm_tokenizer, minilm_word_embeddings
from audioldm.training.clap import text_teacher
from recipes.embedded.tagger import embed_rows

WIDTH = 128


def write_table(table: dict[str, Tensor], path: Path) -> None:
    """Keep a teacher's table as safetensors, float16: the vectors as one matrix, the keys as metadata."""
    path.parent.mkdir(parents=True, exist_ok=True)
    vectors = torch.stack(list(table.values())).half()
    save_file({"vectors": vectors}, path, metadata={"keys": json.dumps(list(table))})


def main() -> None:
    """Read the command line and write the three."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("manifests", nargs="+")
    parser.add_argument("--sounds", nargs="+", default=None)
    args, out = parser.parse_args(), Path("data/start")
    yamnet = YamNet()
    names = [name.lower() for name in yamnet.class_names]  # AudioSet's, to learn from besides the captions
    frames = ("{}", "the sound of {}", "{} in the distance", "{} and {}", "{} followed by {}")
    pairs = zip(names, [*names[97:], *names[:97]], strict=True)  # each with some other name
    extra = [frame.format(*pair) for pair in pairs for frame in frames]
    write_table(text_teacher(args.manifests, ["", *extra]), out / "minilm.safetensors")
    torch.manual_seed(0)
    clap = build_small_clap(minilm_tokenizer(), width=WIDTH, word_embeddings=minilm_word_embeddings(WIDTH))
    clap.save(out / "clap", dtype=torch.float16)
    rows = {
        row.path: row for path in args.sounds or args.manifests for row in read(path) if row.split != "test"
    }
    vectors = embed_rows(list(rows.values()), yamnet)
    write_table(dict(zip(rows, vectors, strict=True)), out / "yamnet.safetensors")


if __name__ == "__main__":
    main()
