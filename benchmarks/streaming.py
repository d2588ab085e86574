"""Streaming for training: WebDataset's tars against litdata's chunks; the same clips, one reader.

    pip install litdata                                    # for the comparison alone; without it only ours is measured
    python -m benchmarks.streaming                         # a minute; --json FILE keeps the numbers

Both hold the same FLAC bytes and captions, and both hand them to the same decoder and the same crop, so what differs is
the reading.   Passes are taken in turn (ABAB).   "bytes" reads without decoding; "windows" is what training gets;
"to go on" is the time from a new process's loader to its first window after half a pass was seen.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import soundfile as sf
import torch

from audioldm.datasets.manifest import Row
from audioldm.datasets.shards import Shards, write_shards
from audioldm.datasets.tars import laid_out, samples
from audioldm.spec import AudioSpec
from benchmarks.measure import installed, machine

SECONDS, RATE = 5.12, 16000


def sounds(folder: Path, clips: int) -> list[Row]:
    """10 s of quiet noise each, as 16 kHz FLAC: about 200 kB."""
    rng = torch.Generator().manual_seed(0)
    rows = []
    for i in range(clips):
        path = folder / f"{i}.flac"
        sf.write(path, (0.02 * torch.randn(10 * RATE, generator=rng)).clamp(-1, 1).numpy(), RATE)
        rows.append(Row(str(path), (f"sound {i}", "noise")))
    return rows


def sample(row: Row) -> dict[str, Any]:
    """What a shard holds of a row."""
    return {
        "__url__": "litdata",
        "__key__": Path(row.path).stem,
        "flac": Path(row.path).read_bytes(),
        "txt": "\n".join(row.captions).encode(),
        "json": json.dumps({"start": row.start, "seconds": row.seconds}).encode(),
    }


def write_chunks(rows: list[Row], folder: Path) -> None:
    """litdata's own format, chunks of about as many clips as a tar."""
    import litdata

    litdata.optimize(
        fn=sample, inputs=rows, output_dir=str(folder), chunk_size=100, num_workers=1, verbose=False
    )


def chunks(folder: Path, *, start: int = 0) -> Iterator[dict[str, Any]]:
    """Samples of a pass in shuffled order, from ``start`` on."""
    from litdata import StreamingDataset

    data = StreamingDataset(str(folder), shuffle=True, seed=0)
    if start:
        data.load_state_dict(
            {
                "num_samples_yielded": start, "num_workers": 1, "batch_size": 1, "current_epoch": 1,
                "input_dir_path": data.input_dir.path, "input_dir_url": data.input_dir.url, "cache_dir_path": None,
                "item_loader": data.item_loader.state_dict() if data.item_loader else None,
                "drop_last": data.drop_last, "seed": data.seed, "world_size": 1, "shuffle": True,
                "subsampled_files": data.subsampled_files, "region_of_interest": data.region_of_interest,
            }
        )  # fmt: skip
    return iter(data)


def windows(items: Iterator[dict[str, Any]], decoder: Shards, count: int) -> None:
    """Decode and crop ``count`` of them."""
    for draws, item in zip(range(count), items, strict=False):
        decoder.item(item, draws)


def drained(items: Iterator[dict[str, Any]], count: int) -> None:
    """Read ``count`` of them."""
    for _ in zip(range(count), items, strict=False):
        pass


def timed(work: Callable[[], None]) -> float:
    """Seconds of wall time."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def measure(clips: int, repeats: int) -> dict[str, dict[str, float]]:
    """Clips a second and seconds, of each way."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = sounds(folder, clips)
        found: dict[str, dict[str, float]] = {"WebDataset": {}}
        tars: list[str] = []
        found["WebDataset"]["write s"] = timed(
            lambda: tars.extend(str(path) for path in write_shards(rows, folder / "tars", clips=100))
        )
        places = {"WebDataset": "tars"}
        if installed("litdata"):
            places["litdata"] = "chunks"
            found["litdata"] = {"write s": timed(lambda: write_chunks(rows, folder / "chunks"))}
        for way, place in places.items():
            size = sum(path.stat().st_size for path in (folder / place).iterdir())
            found[way]["bytes over the FLACs"] = size / sum(Path(row.path).stat().st_size for row in rows)
        decoder = Shards(tars, AudioSpec(), SECONDS, batch_size=1, seed=0)
        half = clips // 2

        def ours(start: int = 0) -> Iterator[dict[str, Any]]:
            laid_out.cache_clear()  # as a new process begins
            return (item.read() for draws, item in decoder.stream(tars, 0, start) if draws >= start)

        ways: dict[str, Callable[..., Iterator[dict[str, Any]]]] = {
            "WebDataset": ours,
            "litdata": partial(chunks, folder / "chunks"),
        }
        ways = {way: ways[way] for way in found}
        jobs = {
            "bytes clips/s": lambda way: clips / timed(lambda: drained(way(), clips)),
            "windows clips/s": lambda way: clips / timed(lambda: windows(way(), decoder, clips)),
            "to go on s": lambda way: timed(lambda: drained(way(start=half), 1)),
        }
        for job, work in jobs.items():
            seen: dict[str, list[float]] = {way: [] for way in ways}
            for _ in range(repeats):
                for way, reader in ways.items():
                    seen[way].append(work(reader))
            for way, values in seen.items():
                found[way][job] = median(values)
        found["WebDataset"]["bytes in file order clips/s"] = clips / timed(
            lambda: drained((item.read() for tar in tars for item in samples(tar)), clips)
        )
    return found


def main(arguments: list[str] | None = None) -> dict[str, dict[str, float]]:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=int, default=400)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(arguments)
    found = measure(args.clips, args.repeats)
    print(f"{'':36}{''.join(f'{way:>12}' for way in found)}")
    for name in found["WebDataset"]:
        cells = [f"{found[way][name]:12.3g}" if name in found[way] else f"{'-':>12}" for way in found]
        print(f"{name:36}{''.join(cells)}")
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        about = {**machine("cpu"), "clips": args.clips, "repeats": args.repeats}
        args.json.write_text(json.dumps({"about": about, "found": found}, indent=1))
    return found


if __name__ == "__main__":
    main()
