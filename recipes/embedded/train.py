"""Trains every part of the embedded model, in pieces that fit a short lease of one or two GPUs.

    python -m recipes.embedded.train parts --minutes 8     # VAE, vocoder and CLAP side by side
    python -m recipes.embedded.train model --minutes 8     # latents; U-Net beside the vocoder on the VAE's mels; export
    python -m recipes.embedded.train model --only vocoder_vae --minutes 8       # one of its trainings
    python -m recipes.embedded.train parts model --batches 4 --trainer cpu      # a rehearsal
    python -m recipes.embedded.train bring --files out     # what a lost machine had sent back, into runs/ again

A piece that is typed again trains on from where it stopped; with ``--once`` what has come to its end is left alone, so
that a piece that was cut off is brought to its end.  ``--send DIR`` leaves what was trained there: shards of float16
safetensors of at most 15 MiB, and a tar of settings, logs and curves.  Needs data/raw/*.jsonl and data/start
(recipes.embedded.start).
"""

import argparse
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from time import monotonic

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from audioldm.paths import inside
from recipes.embedded.lease import MINUTES

SOURCES = {"esc10": 12, "opensounds": 3, "rendered": 1, "composed": 1}  # windows a clip
RUNS = Path("runs/embedded")
MODEL = Path("runs/embedded/release")
PART_BYTES = 15 * 2**20
START_UP = 45  # seconds that imports, data and export take beside the training itself
DEFAULTS = "--steps 20 --guidance 2.5 --refine-phase 0 --retry-silent 3 --name embedded-v2 --dtype float16"


def command(*words: str) -> list[str]:
    """An ``audioldm`` command line."""
    return [sys.executable, "-m", "audioldm", *words]


def side_by_side(jobs: dict[str, list[str]], args: argparse.Namespace, seconds: float) -> None:
    """Train recipes at once, over as many GPUs as there are; each ends by itself in time."""
    count = max(
        1, len(os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")) if args.gpus is None else args.gpus
    )
    running = {}
    wanted = [name for name in jobs if args.only is None or name in args.only]
    for place, name in enumerate(name for name in wanted if not (args.once and ended(name).exists())):
        ended(name).unlink(missing_ok=True)
        words = [f"trainer={args.trainer}", *jobs[name]]
        if args.batches:
            words += [
                f"batches={args.batches}",
                f"val_every={args.batches}",
                "batch_size=4",
                "data.workers=0",
            ]
        else:
            # more than any lease allows: the callback ends the run
            words += ["batches=1000000", "+callbacks.lease._target_=recipes.embedded.lease.Lease"]
            words += [f"data.workers={max(4, (os.cpu_count() or 4) // max(2, len(jobs)) - 2)}"]
        if args.trainer == "cpu":
            words = [word for word in words if not word.startswith("trainer.precision")]
        log = RUNS / f"{name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        env = {**os.environ, MINUTES: f"{max(0.5, (seconds - START_UP) / 60):.2f}"}
        if args.trainer != "cpu":
            env["CUDA_VISIBLE_DEVICES"] = str(place % count)
        with log.open("a") as file:
            running[name] = subprocess.Popen(
                command("train", f"embedded/{name}", *words), stdout=file, stderr=file, env=env
            )
    failed = [name for name, process in running.items() if finished(process)]
    for name in running.keys() - set(failed):
        ended(name).touch()
    for name in wanted:
        print(f"{name}: {last_metrics(name)}", flush=True)
    if failed:
        tail = (RUNS / f"{failed[0]}.log").read_text().replace("\r", "\n").splitlines()[-25:]
        sys.exit(f"failed: {', '.join(failed)}\n" + "\n".join(tail))


def finished(process: subprocess.Popen[bytes]) -> int:
    """The code that it ends with; after Ctrl-C, which it hears too, it gets the time to write its state."""
    try:
        return process.wait()
    except KeyboardInterrupt:
        return process.wait() or 130


def ended(name: str) -> Path:
    """What says that a training came to its end."""
    return RUNS / name / "ended"


def last_metrics(name: str) -> str:
    """The last line that a run wrote of each of its metrics."""
    last: dict[str, float] = {}
    for path in sorted((RUNS / name).rglob("metrics.*")):
        if path.suffix == ".jsonl":
            rows = [json.loads(line) for line in path.read_text().splitlines()]
        else:
            head, *lines = [line.split(",") for line in path.read_text().splitlines()] or [[]]
            rows = [{k: float(v) for k, v in zip(head, line, strict=False) if v} for line in lines]
        for row in rows:
            last.update({k: v for k, v in row.items() if isinstance(v, int | float)})
    return ", ".join(f"{k} {v:.4g}" for k, v in sorted(last.items()))


def parts(args: argparse.Namespace, seconds: float) -> None:
    """VAE, vocoder, CLAP."""
    side_by_side({"vae": [], "vocoder": [], "clap": []}, args, seconds)


def model(args: argparse.Namespace, seconds: float) -> None:
    """Latents, then the U-Net beside the vocoder's second part, then one folder."""
    begin = monotonic()
    manifests = {f"data/raw/{name}.jsonl": count for name, count in SOURCES.items()}
    counts = [1 if args.batches else count for count in manifests.values()]
    windows = [word for count in counts for word in ("--windows", str(count))]
    shared = ["--vae", str(RUNS / "vae/model/vae"), "--clap", str(RUNS / "clap/model")]
    shared += ["--device", "cpu" if args.trainer == "cpu" else "cuda", "--batch-size", "32"]
    caches = {
        "data/latents/embedded": [*manifests, *windows, "--speed", "0.08"],
        "data/latents/embedded_val": [*filter(has_val, manifests), "--split", "val"],
    }
    again = [] if args.once else ["--force"]
    log = RUNS / "encode.log"
    with log.open("a") as file:
        jobs = [
            subprocess.Popen(command("data", "encode", "-o", out, *more, *shared, *again), stderr=file)
            for out, more in caches.items()
        ]
    if any([finished(job) for job in jobs]):
        sys.exit("encoding failed\n" + "\n".join(log.read_text().replace("\r", "\n").splitlines()[-5:]))
    print(f"encoded in {monotonic() - begin:.0f} s", flush=True)
    side_by_side({"ldm": [], "vocoder_vae": []}, args, seconds - (monotonic() - begin))
    if args.only is not None:
        return
    runs = [
        w for n, r in (("ldm", "ldm"), ("vae", "vae"), ("clap", "clap")) for w in (f"--{n}", str(RUNS / r))
    ]
    subprocess.run(
        command(
            "export",
            *runs,
            "--vocoder",
            str(RUNS / "vocoder_vae"),
            *DEFAULTS.split(),
            "-o",
            str(MODEL),
            "--force",
        ),
        check=True,
    )


def has_val(manifest: str) -> bool:
    """Whether a manifest has rows to validate on: one of a rehearsal may have none."""
    return any(json.loads(line)["split"] == "val" for line in Path(manifest).read_text().splitlines())


def send(folder: Path) -> None:
    """What later pieces and people need: weights, settings, curves."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(RUNS.glob("*/model/**/*.safetensors")):
        run = path.relative_to(RUNS).parts[0]
        for place, shard in enumerate(shards(load_file(path))):
            name = f"{run}.{path.parent.name}.{place}.safetensors"
            save_file(shard, folder / name, metadata={"path": str(path)})
            print(f"sent {name}: {(folder / name).stat().st_size / 2**20:.1f} MiB", flush=True)
    files = [p for p in RUNS.glob("*/model/**/*") if p.is_file() and p.suffix != ".safetensors"]
    files += [p for p in RUNS.glob("*/*") if p.suffix in {".yaml", ".json", ".jsonl", ".txt"}]
    files += [*RUNS.glob("*.log"), *RUNS.glob("*.json")]
    with tarfile.open(folder / "settings.tar.gz", "w:gz") as tar:
        for path in sorted(files):
            tar.add(path)


def shards(state: dict[str, torch.Tensor]) -> list[dict[str, torch.Tensor]]:
    """The weights in float16, in parts of at most ``PART_BYTES``."""
    parts: list[dict[str, torch.Tensor]] = [{}]
    room = PART_BYTES
    for key, value in state.items():
        half = value.half() if value.is_floating_point() else value
        if half.nbytes > room and parts[-1]:
            parts.append({})
            room = PART_BYTES
        parts[-1][key] = half.contiguous()
        room -= half.nbytes
    return parts


def bring(folder: Path) -> None:
    """The reverse of ``send``."""
    with tarfile.open(folder / "settings.tar.gz") as tar:
        for item in tar:
            inside(RUNS, os.path.relpath(item.name, RUNS), where=folder / "settings.tar.gz")
            tar.extract(item, filter="data")
    whole: dict[str, dict[str, torch.Tensor]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            state = whole.setdefault(file.metadata()["path"], {})
            state.update({key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118 - a handle, no dict
    for name, state in whole.items():
        path = inside(RUNS, os.path.relpath(name, RUNS), where=folder)
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(state, path, metadata={"format": "pt"})
        print(f"brought {name}", flush=True)


def main() -> None:
    """Read the command line and go through its pieces."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pieces", nargs="+", choices=("parts", "model", "bring"))
    parser.add_argument("--minutes", type=float, default=9.0, help="for all pieces named, together")
    parser.add_argument("--batches", type=int, default=0, help="that many small batches instead: a rehearsal")
    parser.add_argument("--once", action="store_true", help="leave what has come to its end")
    parser.add_argument("--trainer", default="gpu")
    parser.add_argument("--gpus", type=int)
    parser.add_argument("--only", nargs="+", help="of the trainings of these pieces only these")
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
