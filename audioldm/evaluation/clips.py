"""Clips of a model, made once: kept in a folder under the hash of everything that decides their sound."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from audioldm.datasets.decode import encode, read_mono
from audioldm.pipeline.audioldm import AudioLDM


@dataclass
class Clips:
    """``ask`` for prompts with seeds; what lies in ``folder`` already is not made again.

    The key covers the weights' hashes, the settings, prompt and seed; a clip goes through its 16-bit file even when it
    is new, so that a second run hears the same samples.
    """

    pipe: AudioLDM
    folder: Path
    settings: dict[str, Any]
    batch_size: int | None = None
    on_clip: Callable[[], None] = lambda: None
    made: int = field(default=0, init=False)
    found: int = field(default=0, init=False)

    def path(self, prompt: str, seed: int) -> Path:
        """Where the clip lies."""
        adapters = [self.pipe.adapted.settings()] if self.pipe.adapted else []
        told = [
            self.pipe.hashes,
            *adapters,
            vars(self.pipe.defaults),
            self.settings,
            str(self.pipe.dtype),
            prompt,
            seed,
        ]
        digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
        return self.folder / f"{digest[:32]}.wav"

    def ask(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[Tensor]:
        """Waves (N,) at the model's rate."""
        wanted = list(zip(prompts, seeds, strict=True))
        missing = [pair for pair in dict.fromkeys(wanted) if not self.path(*pair).is_file()]
        self.found += len(wanted) - len(missing)
        size = self.batch_size or (1 if self.pipe.device.type == "cpu" else 16)
        for start in range(0, len(missing), size):
            part = missing[start : start + size]
            waves = self.pipe(
                [prompt for prompt, _ in part],
                seeds=[seed for _, seed in part],
                batch_size=size,
                **self.settings,
            )
            for pair, wave in zip(part, waves, strict=True):
                encode(self.path(*pair), wave.cpu().float(), self.pipe.spec.rate)
                self.made += 1
                self.on_clip()
        return [read_mono(self.path(*pair))[0] for pair in wanted]
