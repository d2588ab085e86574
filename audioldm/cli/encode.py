"""``audioldm data encode`` and ``audioldm data stats``: the latent cache that the U-Net learns from."""

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from audioldm.errors import AudioLDMError
from audioldm.spec import SPECS


def encode(
    manifests: Annotated[
        list[str], typer.Argument(help="Manifests, or `synthetic` for the synthetic sounds.")
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder of the cache.")],
    vae: Annotated[str, typer.Option(metavar="REF", help="The autoencoder: run, folder, hub id or file.")],
    clap: Annotated[str, typer.Option(metavar="REF", help="The CLAP: run, folder, hub id or LAION's .pt.")],
    spec: Annotated[str, typer.Option(help="Front end of the autoencoder: 16k_64 or 48k_256.")] = "16k_64",
    seconds: Annotated[float, typer.Option(help="Length of a window.")] = 5.12,
    windows: Annotated[
        list[int] | None,
        typer.Option(
            help="Windows per clip, each at another random place; once, or once a manifest.  [default: 1]"
        ),
    ] = None,
    speed: Annotated[
        float,
        typer.Option(help="All windows of a clip but its first play up to this share faster or slower."),
    ] = 0.0,
    batch_size: Annotated[
        int, typer.Option(help="Windows encoded at once; 0 is 1 on a CPU and 64 on a GPU.")
    ] = 0,
    workers: Annotated[
        int,
        typer.Option(help="Processes that cut windows; -1 is none on a CPU, and as many as cores for a GPU."),
    ] = -1,
    buckets: Annotated[
        str,
        typer.Option(
            metavar="A,B", help="Window lengths instead of one: each clip takes the shortest that holds it."
        ),
    ] = "",
    mixup: Annotated[
        float, typer.Option(help="Chance that a second clip is mixed into a window, its caption joined.")
    ] = 0.0,
    t5: Annotated[
        str, typer.Option(metavar="FOLDER|NAME", help="Keep this T5 encoder's token sequences, too.")
    ] = "",
    maps: Annotated[
        str,
        typer.Option(
            metavar="A,B", help="Keep these maps, for controls: loudness, pitch, onset, centroid, edges."
        ),
    ] = "",
    split: Annotated[str, typer.Option(help="Rows of this split.")] = "train",
    seed: Annotated[int, typer.Option(help="Decides the places.")] = 0,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    force: Annotated[bool, typer.Option("--force", help="Replace an existing cache.")] = False,
) -> None:
    """Run VAE and CLAP once over the data; keep raw posteriors, embeddings and the measured scaling factor.

    A cache is known by what made it.   The same command goes on where it stopped, and does nothing to a whole cache;
    one made from something else is refused, by training too.

    \b
    Examples:
      audioldm data encode data/raw/mine.jsonl -o data/latents/mine --vae runs/VAE/model/vae --clap runs/CLAP/model
      audioldm data encode data/raw/mine.jsonl -o data/latents/mix --buckets 2.56,5.12 --mixup 0.3 --vae VAE --clap CLAP
      audioldm data encode synthetic -o out/lat --seconds 1.28 --vae runs/tiny/vae/model/vae --clap runs/tiny/clap/model
    """
    counts, lengths = windows or [1], numbers(buckets)
    names = tuple(name.strip() for name in maps.split(",") if name.strip())
    check_cuts(counts, len(manifests), seconds, speed, spec)
    import torch

    from audioldm.cli.console import progress
    from audioldm.control.maps import known
    from audioldm.convert.reference import open_part
    from audioldm.datasets.cache import begun, key_of, read_index, write_index, write_latents
    from audioldm.datasets.latents import measure
    from audioldm.datasets.manifest import read
    from audioldm.nets.folder import state_digest
    from audioldm.nets.vae import encoder_digest, stride_of
    from audioldm.training import encoding

    for name in names:
        known(name)
    autoencoder, embedder = open_part(vae, "vae").to(device), open_part(clap, "clap").to(device)
    sequences = open_part(t5, "text_encoder", device=device, dtype=torch.float32) if t5 else None
    channels = autoencoder.config.latent_channels
    front = replace(SPECS[spec], stride=stride_of(autoencoder), latent_channels=channels)
    ingredients = ingredients_of(manifests, vae, clap, t5)
    settings = {
        "seconds": max(lengths) if lengths else seconds, "buckets": lengths, "mixup": mixup, "stride": front.stride,
        "latent_channels": front.latent_channels, "manifests": manifests, "split": split, "windows_a_clip": counts,
        "speed": speed, "seed": seed, "encoder": encoder_digest(autoencoder),
        "clap": state_digest(embedder.audio_encoder),
    }  # fmt: skip
    settings |= {"maps": list(names)} if names else {}
    settings |= {"spec": spec} if spec != "16k_64" else {}
    key = key_of({**settings, "made_of": sorted(item["sha256"] for item in ingredients)})
    done = begun(out, key, force=force)
    if done is None and "scaling_factor" in read_index(out):
        typer.echo(f"{out} is whole already: {read_index(out)['windows']} windows")
        return
    if done is not None:
        cuts = encoding.Cuts(seconds, tuple(lengths), mixup, speed, names, seed)
        sources = [
            encoding.Source.synthetic(front, cuts) if name == "synthetic"
            else encoding.Source.of(read(name, split=split), front, cuts)
            for name in manifests
        ]  # fmt: skip
        about = {
            **settings,
            "key": key,
            "made_of": ingredients,
            "null": embedder.embed_text([""])[0].tolist(),
        }
        if sequences is not None:
            about["null_tokens"] = sequences.embed("").tolist()
        on_gpu = not device.startswith("cpu")
        processes = ((os.cpu_count() or 1) if on_gpu else 0) if workers < 0 else workers
        size = batch_size or (encoding.GPU_BATCH if on_gpu else 1)
        rest = encoding.Windows(sources, encoding.jobs(sources, counts)[done:], front, cuts, batch_size=size)
        nets = encoding.Nets(autoencoder, embedder, front, encoding.text_encoder(embedder, sequences))
        with progress(rest.count, "windows") as step:
            write_latents(encoding.encoded(rest, nets, workers=processes, on_windows=step), out, about=about)
    index = {**read_index(out), **measure(out)}
    write_index(out, index)
    typer.echo(f"{out}: {index['windows']} windows, scaling factor {index['scaling_factor']:.4f}")


def check_cuts(counts: Sequence[int], manifests: int, seconds: float, speed: float, spec: str) -> None:
    """Refuse windows that cannot be cut, before anything is read."""
    if min(counts) < 1 or seconds <= 0:
        raise AudioLDMError(
            f"windows={list(counts)} of seconds={seconds} cannot be cut.", "Use 1 or more of above 0."
        )
    if len(counts) not in (1, manifests):
        raise AudioLDMError(
            f"{len(counts)} --windows for {manifests} manifests.", "Give one, or one each, in their order."
        )
    if not 0 <= speed < 1:
        raise AudioLDMError(f"speed={speed} is not a share.", "Use 0 or more, below 1; 0.06 is a semitone.")
    if spec not in SPECS:
        raise AudioLDMError(f"spec={spec!r} is unknown.", f"Known: {', '.join(SPECS)}.")


def ingredients_of(manifests: Sequence[str], vae: str, clap: str, t5: str) -> list[dict[str, Any]]:
    """The files that decide a cache, with their hashes."""
    from audioldm.convert.reference import find_part
    from audioldm.datasets.cache import ingredient

    out = [ingredient("manifest", name) for name in manifests if Path(name).is_file()]
    for file in find_part(vae, "vae").files:
        prefixes = ("encoder.", "quant_conv.") if file.suffix == ".safetensors" else ()
        out.append(ingredient("VAE", file, prefixes))
    out += [ingredient("CLAP", file) for file in find_part(clap, "clap").files]
    return out + [ingredient("T5", file) for file in (find_part(t5, "text_encoder").files if t5 else ())]


def numbers(text: str) -> list[float]:
    """The lengths in "2.56,5.12"."""
    try:
        return [float(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise AudioLDMError(f"buckets={text!r} are no lengths.", "Write seconds: 2.56,5.12,10.24.") from None


def stats(
    folder: Annotated[Path, typer.Argument(help="A latent cache.")],
) -> None:
    """Measure a cache's mean, deviation and scaling factor over every window, and store them in its index.

    \b
    Example:
      audioldm data stats data/latents/esc10
    """
    from audioldm.datasets.cache import read_index, write_index
    from audioldm.datasets.latents import measure

    moments = measure(folder)
    write_index(folder, {**read_index(folder), **moments})
    typer.echo(json.dumps(moments))
