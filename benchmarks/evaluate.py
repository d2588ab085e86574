"""How long does scoring take?   `python benchmarks/evaluate.py --clips 1000`: generated clips against as many real.

The sounds are synthetic and 5 s long, written to a temporary folder; embeddings are not cached before the first run and
all cached in the second.   Wall time depends on what else the machine does, processor time hardly.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import torch

from audioldm.datasets.decode import encode
from audioldm.datasets.synthetic import Synthetic
from audioldm.evaluation.cache import Cache
from audioldm.evaluation.comparison import Comparison
from audioldm.evaluation.listened import Frame
from audioldm.evaluation.sets import Item
from audioldm.evaluation.yamnet import YamNet
from audioldm.spec import SPECS

SECONDS = 5.0


def write(folder: Path, count: int, seed: int) -> list[Item]:
    """``count`` clips with captions."""
    made = Synthetic(SPECS["16k_64"], SECONDS, count, seed=seed)
    items = []
    for i in range(count):
        wave, caption, _ = made[i]
        items.append(Item(f"{i:05d}", encode(folder / f"{i:05d}.wav", wave[0], 16000), caption))
    return items


def main() -> None:
    """Time a cold and a warm run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    found: dict[str, object] = {"clips": given.clips, "seconds": SECONDS, "threads": given.threads}
    with tempfile.TemporaryDirectory() as place:
        made = write(Path(place, "made"), given.clips, 0)
        real = write(Path(place, "real"), given.clips, 1)
        for name in ("cold", "warm"):
            wall, used = time.perf_counter(), time.process_time()
            compare = Comparison([made], real, Frame(SECONDS), cache=Cache(Path(place, "cache")))
            report = compare.run([YamNet(threads=given.threads)], {})
            found[name] = {
                "wall": round(time.perf_counter() - wall, 1),
                "processor": round(time.process_time() - used, 1),
                "cache": report.about["cache"],
            }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
