"""Embeddings on the disk, under the hash of everything that decides them: the sound's bytes, part, framing, network."""

import hashlib
import json
import os
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from audioldm.evaluation.embedders.protocol import Embedder, Embeddings


@dataclass
class Cache:
    """One small ``.npz`` a clip and embedder below ``folder``; None keeps nothing.   A broken file is made again."""

    folder: Path | None
    hits: int = field(default=0, init=False)
    misses: int = field(default=0, init=False)

    def key(self, sound: str, framing: str, embedder: Embedder) -> str:
        """``sound`` is the sha256 of the file and the part of it."""
        told = [sound, framing, embedder.name, embedder.sha256, embedder.front]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()

    def place(self, key: str) -> Path | None:
        """Where a key lies."""
        return None if self.folder is None else self.folder / key[:2] / f"{key}.npz"

    def get(self, key: str) -> Embeddings | None:
        """What was heard, float32, or None."""
        path = self.place(key)
        if path is None or not path.is_file():
            self.misses += 1
            return None
        try:
            with np.load(path, allow_pickle=False) as content:
                rows = torch.from_numpy(content["rows"])
                logits = torch.from_numpy(content["logits"]) if "logits" in content else None
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            path.unlink(missing_ok=True)
            self.misses += 1
            return None
        self.hits += 1
        return Embeddings(rows, logits)

    def put(self, key: str, heard: Embeddings) -> None:
        """Write in one step."""
        path = self.place(key)
        if path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        parts = {"rows": heard.rows.numpy()} | (
            {} if heard.logits is None else {"logits": heard.logits.numpy()}
        )
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        with partial.open("wb") as file:
            np.savez(file, **parts)
        os.replace(partial, path)
