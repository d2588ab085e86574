"""``audioldm data encode``: the latent cache that the U-Net learns from."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from audioldm.cli.console import say, show_text, waiting, would
from audioldm.cli.options import POSITIVE, SHARE, Between, Command, DryRun, Force, argument, option
from audioldm.cli.startup import later
from audioldm.errors import AudioLDMError
from audioldm.paths import sha256
from audioldm.progress import counted
from audioldm.spec import SPECS, AudioSpec

with later():
    import torch

    from audioldm.control import maps
    from audioldm.convert import reference
    from audioldm.datasets import check, latents, manifest
    from audioldm.nets import clap as claps
    from audioldm.nets import folder as folders
    from audioldm.nets import vae as vaes
    from audioldm.training import encoding


class Encode(Force, DryRun, Command):
    """Run VAE and CLAP once over the data; keep raw posteriors, embeddings and the measured scaling factor.

    A cache is known by what made it.   The same command goes on where it stopped, and does nothing to a whole cache;
    one made from something else is refused, by training too.   A file that is lost or changed is named and left out.

    Examples:
      audioldm data encode data/raw/mine.jsonl -o data/latents/mine --vae runs/VAE/model/vae --clap runs/CLAP/model
      audioldm data encode data/raw/mine.jsonl -o data/latents/mix --buckets 2.56,5.12 --mixup 0.3 --vae VAE --clap CLAP
      audioldm data encode synthetic -o out/lat --seconds 1.28 --vae runs/tiny/vae/model/vae --clap runs/tiny/clap/model
    """

    manifests: list[str] = argument(..., "Manifests, or `synthetic` for the synthetic sounds.")
    out: Path = option(..., "Folder of the cache.", "-o", "DIR")
    vae: str = option(..., "The autoencoder: run, folder, hub id or file.", "REF")
    clap: str = option(..., "The CLAP: run, folder, hub id or LAION's .pt.", "REF")
    spec: Literal["16k_64", "48k_256"] = option("16k_64", "Front end of the autoencoder.")
    seconds: float = option(5.12, "Length of a window.", POSITIVE)
    windows: list[int] = option([], "Windows of a clip, at random places; once or each manifest.", Between(1))
    speed: float = option(0.0, "Windows but the first play up to this faster or slower.", Between(0, 0.99))
    batch_size: int = option(0, "Windows encoded at once; 0 is 1 on a CPU and 64 on a GPU.", Between(0, 4096))
    workers: int = option(-1, "Processes that cut; -1 is none on a CPU, else all cores.", Between(-1))
    buckets: str = option("", "Several window lengths: each clip takes the shortest that holds it.", "A,B")
    mixup: float = option(0.0, "Chance that a second clip is mixed into a window, its caption joined.", SHARE)
    t5: str = option("", "Keep this T5 encoder's token sequences, too.", "FOLDER|NAME")
    maps: str = option("", "Keep these maps, for controls: loudness, pitch, onset, centroid, edges.", "A,B")
    split: str = option("train", "Rows of this split.")
    seed: int = option(0, "Decides the places.", Between(0))
    device: str = option("cpu", "cpu or cuda.")

    def run(self) -> None:
        cuts, out = self.cuts(), self.out
        vae = reference.open_part(self.vae, "vae").to(self.device)
        clap = reference.open_part(self.clap, "clap").to(self.device)
        t5 = (
            reference.open_part(self.t5, "text_encoder", device=self.device, dtype=torch.float32)
            if self.t5
            else None
        )
        spec = replace(
            SPECS[self.spec], stride=vaes.stride_of(vae), latent_channels=vae.config.latent_channels
        )
        nets = encoding.Nets(vae, clap, spec, encoding.text_encoder(clap, t5))
        ingredients, settings = self.ingredients(), self.settings(cuts, nets)
        key = latents.key_of({**settings, "made_of": sorted(item["sha256"] for item in ingredients)})
        done = None if self.dry_run else latents.begun(out, key, force=self.force)
        if done is not None or self.dry_run:
            left_out = latents.read_index(out, whole=False).get("left_out", []) if done else None
            sources, left_out = self.sources(cuts, spec, left_out)
            windows = encoding.jobs(sources, self.windows or [1])
            if self.dry_run:
                would(f"{len(windows)} windows would be encoded into {out}")
                return
            about = {**settings, "key": key, "made_of": ingredients, "left_out": left_out}
            about["null"] = clap.embed_text([""])[0].tolist()
            about |= {"null_tokens": t5.embed("").tolist()} if t5 is not None else {}
            cores = 0 if self.device.startswith("cpu") else os.cpu_count() or 1
            size, workers = self.batch_size or (encoding.GPU_BATCH if cores else 1), self.workers
            rest = encoding.Windows(sources, windows[done:], spec, cuts, batch_size=size)
            with waiting("encoding"):
                encodings = encoding.encoded(rest, nets, workers=cores if workers < 0 else workers)
                latents.write_latents(encodings, out, about=about)
            if cut := [text for text in nets.known if claps.unread_words(t5 or clap, text)[1]]:
                what = f"{len(cut)} of {len(nets.known)} captions are longer than the text encoder reads"
                say(f"warning: {what}; their last words were left out: {cut[0][:80]!r} and so on.")
        index = latents.read_index(out)
        if "scaling_factor" in index:
            show_text(f"{out} is whole already: {index['windows']} windows")
            return
        index |= latents.measure(out)
        latents.write_index(out, index)
        show_text(f"{out}: {index['windows']} windows, scaling factor {index['scaling_factor']:.4f}")

    def sources(
        self, cuts: encoding.Cuts, spec: AudioSpec, left_out: list[str] | None
    ) -> tuple[list[encoding.Source], list[str]]:
        """The data sets, and the files left out of them: those of a cache that goes on, or what ``unfit`` names."""
        tables = {
            name: manifest.read(name, split=self.split) for name in self.manifests if name != "synthetic"
        }
        if left_out is None:
            left_out = unfit([row for rows in tables.values() for row in rows])
        sources = {
            name: encoding.Source.synthetic(spec, cuts) for name in self.manifests if name not in tables
        }
        for name, rows in tables.items():
            sources[name] = encoding.Source.of([row for row in rows if row.path not in left_out], spec, cuts)
        return [sources[name] for name in self.manifests], left_out

    def cuts(self) -> encoding.Cuts:
        if len(self.windows) not in (0, 1, len(self.manifests)):
            what = f"{len(self.windows)} --windows for {len(self.manifests)} manifests."
            raise AudioLDMError(what, "Give one, or one each, in their order.")
        try:
            lengths = tuple(map(float, parts_of(self.buckets)))
        except ValueError:
            what = f"buckets={self.buckets!r} are no lengths."
            raise AudioLDMError(what, "Write seconds: 2.56,5.12,10.24.") from None
        for name in (names := parts_of(self.maps)):
            maps.known(name)
        return encoding.Cuts(self.seconds, lengths, self.mixup, self.speed, names, self.seed)

    def settings(self, cuts: encoding.Cuts, nets: encoding.Nets) -> dict[str, Any]:
        settings = {
            "seconds": max(cuts.buckets or (cuts.seconds,)), "buckets": list(cuts.buckets), "mixup": cuts.mixup,
            "stride": nets.spec.stride, "latent_channels": nets.spec.latent_channels, "manifests": self.manifests,
            "split": self.split, "windows_a_clip": self.windows or [1], "speed": cuts.speed, "seed": cuts.seed,
            "encoder": vaes.encoder_digest(nets.vae), "clap": folders.state_digest(nets.clap.audio_encoder),
        }  # fmt: skip
        settings |= {"maps": list(cuts.maps)} if cuts.maps else {}
        return settings | ({"spec": self.spec} if self.spec != "16k_64" else {})

    def ingredients(self) -> list[dict[str, Any]]:
        files: list[tuple[str, Path | str]] = [
            ("manifest", name) for name in self.manifests if Path(name).is_file()
        ]
        files += [("VAE", file) for file in reference.find_part(self.vae, "vae").files]
        files += [("CLAP", file) for file in reference.find_part(self.clap, "clap").files]
        if self.t5:
            files += [("T5", file) for file in reference.find_part(self.t5, "text_encoder").files]
        encoder = ("encoder.", "quant_conv.")
        parts = ((what, file, what == "VAE" and Path(file).suffix == ".safetensors") for what, file in files)
        return [latents.ingredient(what, file, encoder if half else ()) for what, file, half in parts]


def unfit(rows: list[manifest.Row]) -> list[str]:
    """Name the files that are not there, not those that were checked or, never checked, no sound."""
    findings = []
    for row in counted(rows, "files"):
        known = row.sha256 and os.path.isfile(row.path) and sha256(row.path) == row.sha256
        sound, wrong, _ = (row, [], "") if known else check.inspect(row)
        findings += [] if sound else wrong
    for finding in findings:
        say(f"{finding}; it is left out.")
    if rows and len({finding.path for finding in findings}) == len({row.path for row in rows}):
        raise AudioLDMError("No sound of the manifests is left.", "See the lines above.", code=1)
    return [finding.path for finding in findings]


def parts_of(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())
