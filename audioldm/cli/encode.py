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
    windows: Annotated[int, typer.Option(help="Windows per clip, each at another random place.")] = 1,
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

    if windows < 1 or seconds <= 0:
        raise AudioLDMError(
            f"windows={windows} of seconds={seconds} cannot be cut.", "Use 1 or more of above 0."
        )
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
        "encoder": encoder_digest(autoencoder),  # type: ignore[arg-type]
        "clap": sha256(weight_file(clap / "audio_encoder")),
        "null": embedder.embed_text([""])[0].tolist(),
    }
    index = write_latents(encoded(data, windows, autoencoder, embedder, spec, seconds), out, about=about)
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


def encoded(data, windows, autoencoder, embedder, spec, seconds) -> Iterator["Encoded"]:  # type: ignore[no-untyped-def]
    """Every window's posterior and embeddings, with a progress bar on stderr."""
    import torch
    from rich.console import Console
    from rich.progress import Progress

    from audioldm.datasets.latents import Encoded
    from audioldm.nets.vae import encode
    from audioldm.signal.level import normalise_peak
    from audioldm.signal.mel import LogMel

    device = next(autoencoder.parameters()).device
    log_mel = LogMel(spec).to(device)
    with torch.no_grad(), Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("encode", total=windows * sum(size for _, size, _, _ in data))
        for dataset, size, captions, sources in data:
            for row in range(size):
                text = torch.cat([embedder.embed_text([c]) for c in captions[row]])
                for draw in range(windows):
                    wave, _, _ = dataset[(row, draw)]
                    wave = normalise_peak(shifted(wave, draw, row)[None].to(device))
                    mean, std = encode(autoencoder, log_mel(wave))
                    audio = embedder.embed_audio(wave)[0]
                    yield Encoded(mean[0].cpu(), std[0].cpu(), audio.cpu(), text.cpu(), sources[row])
                    progress.advance(task)


def shifted(wave, draw: int, row: int):  # type: ignore[no-untyped-def]
    """A clip shorter than the window lies at its start in the first draw, anywhere that it fits in the others."""
    import torch

    from audioldm.datasets.audio_text import generator

    loud = wave[0].abs().nonzero()
    free = wave.shape[-1] - (int(loud[-1]) + 1 if len(loud) else 0)
    if draw == 0 or free == 0:
        return wave
    move = int(torch.randint(free + 1, (), generator=generator(0, draw, row)))
    return wave.roll(move, dims=-1)
