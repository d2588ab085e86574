"""Trains every part of the embedded model, in pieces that fit a short lease of one or two GPUs.

    python recipes/embedded/train.py parts --minutes 8     # VAE, vocoder and CLAP side by side
    python recipes/embedded/train.py model --minutes 8     # latents; U-Net beside the vocoder on the VAE's mels; export
    python recipes/embedded/train.py parts model --batches 4 --trainer cpu      # a rehearsal
    python recipes/embedded/train.py bring --files out     # what a lost machine had sent back, into runs/ again

A piece that is typed again goes on where it stopped.   ``--send DIR`` leaves what was trained there as a tar in files
of at most 15 MiB.   Needs data/raw/*.jsonl and data/start (recipes/embedded/start.py).
"""

import argparse
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from time import monotonic

SOURCES = {"esc10": 12, "opensounds": 3, "rendered": 1, "composed": 1}  # windows a clip
RUNS = Path("runs/embedded")
MODEL = Path("runs/embedded/release")
PART_BYTES = 15 * 2**20
START_UP = 45  # seconds that imports, data and export take beside the training itself
DEFAULTS = (
    "--steps",
    "20",
    "--guidance",
    "5.0",
    "--polish",
    "16",
    "--name",
    "embedded-v1",
    "--dtype",
    "float16",
)


def command(*words: str) -> list[str]:
    """An ``audioldm`` command line."""
    return [sys.executable, "-m", "audioldm", *words]


def side_by_side(jobs: dict[str, list[str]], args: argparse.Namespace, seconds: float) -> None:
    """Train recipes at once, over as many GPUs as there are; each ends by itself in time."""
    count = max(
        1, len(os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")) if args.gpus is None else args.gpus
    )
    running = {}
    for place, (name, overrides) in enumerate(jobs.items()):
        words = [f"trainer={args.trainer}", *overrides]
        if args.batches:
            words += [f"batches={args.batches}", "val_every=2", "batch_size=4", "data.workers=0"]
        else:
            words += [f"+trainer.minutes={max(0.5, (seconds - START_UP) / 60):.2f}"]
        if args.trainer == "cpu":
            words = [word for word in words if not word.startswith("trainer.precision")]
        log = RUNS / f"{name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        env = (
            {**os.environ, "CUDA_VISIBLE_DEVICES": str(place % count)}
            if args.trainer != "cpu"
            else os.environ
        )
        with log.open("a") as file:
            running[name] = subprocess.Popen(
                command("train", f"embedded/{name}", *words), stdout=file, stderr=file, env=env
            )
    failed = [name for name, process in running.items() if process.wait()]
    for name in running:
        print(f"{name}: {last_metrics(name)}", flush=True)
    if failed:
        tail = (RUNS / f"{failed[0]}.log").read_text().replace("\r", "\n").splitlines()[-25:]
        sys.exit(f"failed: {', '.join(failed)}\n" + "\n".join(tail))


def last_metrics(name: str) -> str:
    """The last line that a run wrote of each of its metrics."""
    found: dict[str, float] = {}
    for path in sorted((RUNS / name).rglob("metrics.*")):
        if path.suffix == ".jsonl":
            rows = [json.loads(line) for line in path.read_text().splitlines()]
        else:
            head, *lines = [line.split(",") for line in path.read_text().splitlines()] or [[]]
            rows = [{k: float(v) for k, v in zip(head, line, strict=False) if v} for line in lines]
        for row in rows:
            found.update({k: v for k, v in row.items() if isinstance(v, int | float)})
    return ", ".join(f"{k} {v:.4g}" for k, v in sorted(found.items()))


def parts(args: argparse.Namespace, seconds: float) -> None:
    """VAE, vocoder, CLAP."""
    side_by_side({"vae": [], "vocoder": [], "clap": []}, args, seconds)


def model(args: argparse.Namespace, seconds: float) -> None:
    """Latents, then the U-Net beside the vocoder's second part, then one folder."""
    begin = monotonic()
    manifests = [f"data/raw/{name}.jsonl" for name in SOURCES]
    windows = [word for count in SOURCES.values() for word in ("--windows", str(count))]
    shared = ["--vae", str(RUNS / "vae/model/vae"), "--clap", str(RUNS / "clap/model"), "--force"]
    shared += ["--device", "cpu" if args.trainer == "cpu" else "cuda", "--batch-size", "32"]
    caches = {
        "data/latents/embedded": [*windows, "--speed", "0.08"],
        "data/latents/embedded_val": ["--split", "val"],
    }
    jobs = [
        subprocess.Popen(
            command("data", "encode", *manifests, "-o", out, *more, *shared), stderr=subprocess.DEVNULL
        )
        for out, more in caches.items()
        if not (Path(out) / "index.json").exists()
    ]
    if any([job.wait() for job in jobs]):
        sys.exit("encoding failed")
    print(f"encoded in {monotonic() - begin:.0f} s", flush=True)
    side_by_side({"ldm": [], "vocoder_vae": []}, args, seconds - (monotonic() - begin))
    runs = [
        w for n, r in (("ldm", "ldm"), ("vae", "vae"), ("clap", "clap")) for w in (f"--{n}", str(RUNS / r))
    ]
    subprocess.run(
        command(
            "export", *runs, "--vocoder", str(RUNS / "vocoder_vae"), *DEFAULTS, "-o", str(MODEL), "--force"
        ),
        check=True,
    )


def send(folder: Path) -> None:
    """What later pieces and people need: models, settings, curves."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = MODEL.is_dir()
    kept = [MODEL] if whole else sorted(RUNS.glob("*/model"))
    kept += sorted(p for p in RUNS.glob("*/*") if p.suffix in {".yaml", ".json", ".jsonl", ".txt"})
    kept += sorted(RUNS.glob("*.log")) + sorted(RUNS.glob("*/csv"))
    with tarfile.open(folder.parent / "embedded.tar", "w") as tar:
        for path in kept:
            tar.add(path)
    data = (folder.parent / "embedded.tar").read_bytes()
    for place, start in enumerate(range(0, len(data), PART_BYTES)):
        (folder / f"embedded.tar.{place}").write_bytes(data[start : start + PART_BYTES])
    print(f"sent {len(data) / 2**20:.1f} MiB", flush=True)


def bring(folder: Path) -> None:
    """The reverse of ``send``."""
    joined = folder / "embedded.tar"
    joined.write_bytes(b"".join(p.read_bytes() for p in sorted(folder.glob("embedded.tar.*"))))
    with tarfile.open(joined) as tar:
        tar.extractall(filter="data")


def main() -> None:
    """Read the command line and go through its pieces."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pieces", nargs="+", choices=("parts", "model", "bring"))
    parser.add_argument("--minutes", type=float, default=9.0, help="for all pieces named, together")
    parser.add_argument("--batches", type=int, default=0, help="that many small batches instead: a rehearsal")
    parser.add_argument("--trainer", default="gpu")
    parser.add_argument("--gpus", type=int)
    parser.add_argument("--send", type=Path)
    parser.add_argument("--files", type=Path, default=Path("."))
    args = parser.parse_args()
    for piece in args.pieces:
        if piece == "bring":
            bring(args.files)
        else:
            {"parts": parts, "model": model}[piece](args, 60 * args.minutes / len(args.pieces))
    if args.send:
        send(args.send)


if __name__ == "__main__":
    main()
