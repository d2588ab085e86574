"""``audioldm data encode`` and ``audioldm data stats``: the latent cache that the U-Net learns from."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from audioldm.errors import AudioLDMError
from audioldm.spec import SPECS


def encode(
    manifests: Annotated[list[str], typer.Argument(help="Manifests, or `synthetic` for the made-up sounds.")],
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
    batch_size: Annotated[int, typer.Option(help="Windows encoded at once.")] = 1,
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
    if min(counts) < 1 or seconds <= 0:
        raise AudioLDMError(
            f"windows={counts} of seconds={seconds} cannot be cut.", "Use 1 or more of above 0."
        )
    if len(counts) not in (1, len(manifests)):
        raise AudioLDMError(
            f"{len(counts)} --windows for {len(manifests)} manifests.",
            "Give one, or one each, in their order.",
        )
    if not 0 <= speed < 1:
        raise AudioLDMError(f"speed={speed} is not a share.", "Use 0 or more, below 1; 0.06 is a semitone.")
    if spec not in SPECS:
        raise AudioLDMError(f"spec={spec!r} is unknown.", f"Known: {', '.join(SPECS)}.")
    import torch

    from audioldm.cli.windows import encoded, jobs, sources
    from audioldm.control.maps import known
    from audioldm.convert.reference import find_part, open_part
    from audioldm.datasets.cache import begun, ingredient, key_of, read_index, write_latents
    from audioldm.datasets.latents import measure, write_index
    from audioldm.nets.folder import state_digest
    from audioldm.nets.vae import encoder_digest, stride_of

    names = [name.strip() for name in maps.split(",") if name.strip()]
    for name in names:
        known(name)
    autoencoder, embedder = open_part(vae, "vae").to(device), open_part(clap, "clap").to(device)
    sequences = open_part(t5, "text_encoder", device=device, dtype=torch.float32) if t5 else None
    channels = autoencoder.config.latent_channels  # type: ignore[union-attr]
    front = replace(SPECS[spec], stride=stride_of(autoencoder), latent_channels=channels)  # type: ignore[arg-type]
    made_of = [ingredient("manifest", name) for name in manifests if Path(name).is_file()]
    for file in find_part(vae, "vae").files:
        made_of.append(
            ingredient("VAE", file, ("encoder.", "quant_conv.") if file.suffix == ".safetensors" else ())
        )
    made_of += [ingredient("CLAP", file) for file in find_part(clap, "clap").files]
    made_of += [ingredient("T5", file) for file in (find_part(t5, "text_encoder").files if t5 else ())]
    settings = {
        "seconds": max(lengths) if lengths else seconds,
        "buckets": lengths,
        "mixup": mixup,
        "stride": front.stride,
        "latent_channels": front.latent_channels,
        "manifests": manifests,
        "split": split,
        "windows_a_clip": counts,
        "speed": speed,
        "seed": seed,
        "encoder": encoder_digest(autoencoder),  # type: ignore[arg-type]
        "clap": state_digest(embedder.audio_encoder),
    }
    settings |= {"maps": names} if names else {}
    settings |= {"spec": spec} if spec != "16k_64" else {}
    key = key_of({**settings, "made_of": sorted(item["sha256"] for item in made_of)})
    done = begun(out, key, force=force)
    if done is None and "scaling_factor" in read_index(out):
        typer.echo(f"{out} is whole already: {read_index(out)['windows']} windows")
        return
    if done is not None:
        found = sources(
            manifests, front, seconds, split=split, seed=seed, buckets=lengths or None, mixup=mixup
        )
        about = {**settings, "key": key, "made_of": made_of, "null": embedder.embed_text([""])[0].tolist()}
        if sequences is not None:
            about["null_tokens"] = sequences.embed("").tolist()
        todo = jobs(found, counts)[done:]
        made = encoded(
            found, todo, autoencoder, embedder, front,
            sequences=sequences, speed=speed, batch_size=batch_size, maps=names,
        )  # fmt: skip
        write_latents(made, out, about=about)
    index = {**read_index(out), **measure(out)}
    write_index(out, index)
    typer.echo(f"{out}: {index['windows']} windows, scaling factor {index['scaling_factor']:.4f}")


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
    from audioldm.datasets.latents import measure, read_index, write_index

    found = measure(folder)
    write_index(folder, {**read_index(folder), **found})
    typer.echo(json.dumps(found))
