"""``audioldm data encode`` and ``audioldm data stats``: the latent cache that the U-Net learns from."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from torch.utils.data import Dataset

    from audioldm.datasets.audio_text import Item
    from audioldm.datasets.latents import Encoded
    from audioldm.spec import AudioSpec


def encode(
    manifests: Annotated[list[str], typer.Argument(help="Manifests, or `synthetic` for the made-up sounds.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder of the cache.")],
    vae: Annotated[Path, typer.Option(help="Folder of the autoencoder (…/model/vae).")],
    clap: Annotated[Path, typer.Option(help="Folder that holds text_encoder, tokenizer and audio_encoder.")],
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
    split: Annotated[str, typer.Option(help="Rows of this split.")] = "train",
    seed: Annotated[int, typer.Option(help="Decides the places.")] = 0,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    force: Annotated[bool, typer.Option("--force", help="Replace an existing cache.")] = False,
) -> None:
    """Run VAE and CLAP once over the data; keep raw posteriors, embeddings and the measured scaling factor.

    \b
    Examples:
      audioldm data encode data/raw/mine.jsonl -o data/latents/mine --vae runs/VAE/model/vae --clap runs/CLAP/model
      audioldm data encode synthetic -o out/lat --seconds 1.28 --vae runs/tiny/vae/model/vae --clap runs/tiny/clap/model
    """
    from audioldm.datasets.latents import measure, write_index, write_latents
    from audioldm.errors import AudioLDMError
    from audioldm.nets.clap import SmallClap
    from audioldm.nets.folder import load_component, sha256, weight_file
    from audioldm.nets.vae import encoder_digest, stride_of
    from audioldm.spec import AudioSpec

    counts = windows or [1]
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
    if (out / "index.json").exists() and not force:
        raise AudioLDMError(f"{out} holds a cache already.", "Pass --force to replace it.")
    autoencoder, embedder = load_component(vae).to(device), SmallClap.load(clap).to(device)
    channels = autoencoder.config.latent_channels  # type: ignore[union-attr]
    spec = AudioSpec(stride=stride_of(autoencoder), latent_channels=channels)  # type: ignore[arg-type]
    data = sources(manifests, spec, seconds, split=split, seed=seed)
    about = {
        "seconds": seconds,
        "stride": spec.stride,
        "latent_channels": spec.latent_channels,
        "manifests": manifests,
        "split": split,
        "windows_a_clip": counts,
        "speed": speed,
        "encoder": encoder_digest(autoencoder),  # type: ignore[arg-type]
        "clap": sha256(weight_file(clap / "audio_encoder")),
        "null": embedder.embed_text([""])[0].tolist(),
    }
    plan = list(zip(data, counts if len(counts) > 1 else counts * len(data), strict=True))
    made = encoded(plan, autoencoder, embedder, spec, speed=speed, batch_size=batch_size)
    index = write_latents(made, out, about=about)
    index.update(measure(out))
    write_index(out, index)
    typer.echo(f"{out}: {index['windows']} windows, scaling factor {index['scaling_factor']:.4f}")


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


def sources(
    names: list[str], spec: "AudioSpec", seconds: float, *, split: str, seed: int
) -> list[tuple["Dataset[Item]", int, list[list[str]], list[str]]]:
    """(data set, size, captions of each row, source of each row) of each name."""
    from audioldm.datasets.audio_text import AudioText
    from audioldm.datasets.manifest import read
    from audioldm.datasets.synthetic import SOUNDS, Synthetic

    found: list[tuple[Dataset[Item], int, list[list[str]], list[str]]] = []
    for name in names:
        if name == "synthetic":
            made = Synthetic(spec, seconds, 280, seed=seed)
            texts = [list(SOUNDS[made.kind(i)][1]) for i in range(len(made))]
            found.append((made, len(made), texts, ["synthetic"] * len(made)))
        else:
            rows = read(name, split=split)
            data = AudioText(rows, spec, seconds, seed=seed)
            found.append((data, len(rows), [list(r.captions) for r in rows], [r.source for r in rows]))
    return found


def encoded(plan, autoencoder, embedder, spec, *, speed, batch_size) -> Iterator["Encoded"]:  # type: ignore[no-untyped-def]
    """Every window's posterior and embeddings, with a progress bar on stderr."""
    import torch
    from rich.console import Console
    from rich.progress import Progress

    from audioldm.datasets.latents import Encoded
    from audioldm.nets.vae import encode
    from audioldm.signal.level import normalise_peak
    from audioldm.signal.mel import LogMel

    device = next(autoencoder.parameters()).device
    log_mel, words = LogMel(spec).to(device), dict[str, torch.Tensor]()
    with torch.no_grad(), Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("encode", total=sum(windows * size for (_, size, _, _), windows in plan))
        for (dataset, size, captions, sources), windows in plan:
            for caption in {c for row in captions for c in row} - words.keys():
                words[caption] = embedder.embed_text([caption])[0].cpu()
            todo = [(row, draw) for row in range(size) for draw in range(windows)]
            for start in range(0, len(todo), batch_size):
                part = todo[start : start + batch_size]
                waves = torch.stack([varied(dataset[place][0], *place, speed=speed) for place in part])
                wave = normalise_peak(waves.to(device))
                mean, std = (value.cpu() for value in encode(autoencoder, log_mel(wave)))
                audio = embedder.embed_audio(wave).cpu()
                for i, (row, _) in enumerate(part):
                    text = torch.stack([words[c] for c in captions[row]])
                    yield Encoded(mean[i], std[i], audio[i], text, sources[row])
                progress.advance(task, len(part))


def varied(wave, row: int, draw: int, *, speed: float):  # type: ignore[no-untyped-def]
    """The first draw (1, N) as it is; the others at another speed, and moved where silence at the end allows."""
    import torch

    from audioldm.datasets.audio_text import generator
    from audioldm.datasets.decode import resample

    if draw == 0:
        return wave
    rng, length = generator(0, draw, row), wave.shape[-1]
    if speed:
        factor = 1 + speed * (2 * float(torch.rand((), generator=rng)) - 1)
        wave = resample(wave, 50, round(50 / factor))[..., :length]  # small terms, small kernels
        wave = torch.nn.functional.pad(wave, (0, length - wave.shape[-1]))
    loud = wave[0].abs().nonzero()
    free = length - (int(loud[-1]) + 1 if len(loud) else 0)
    return wave.roll(int(torch.randint(free + 1, (), generator=rng)), dims=-1)
