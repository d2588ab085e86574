"""Judges a model on open prompts by measures that its training did not see: the tables of docs/tricks.md.

    python -m recipes.finetune.judge embedded runs/preference/expert/model --prompts open.tsv --clips held_out/
    python -m recipes.finetune.judge runs/sdxl/micro/model --facts "" --facts start=5 --seconds 2.56 5.12 10.24 ...

``--prompts`` is a list as ``audioldm evaluate prompts`` reads it, ``--clips`` a folder of held-out sounds and captions.
``--seeds`` clips of each prompt, the same noise for every model.   recognised: a right class among YAMNet's five
highest with at least .2, patches by their mean or their largest.   diversity: 1 less YAMNet's cosine between seeds.
FD: YAMNet's patches of sounds under the held-out captions against those clips.   reward: the model's own CLAP, which
preferences are trained on and which therefore judges nothing.   N samples, P patches, B clips.
"""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torchaudio.functional as taf
from torch import Tensor
from torch.nn import functional as nnf

from audioldm.batch import Condition
from audioldm.cli.options.groups import with_facts
from audioldm.control.controls import parse_facts
from audioldm.datasets.decode import decode
from audioldm.datasets.prepare.folder import folder as rows_of
from audioldm.evaluation.embedders import yamnet
from audioldm.evaluation.prompts import HIGHEST, IGNORED, LEAST, fits, read_prompts
from audioldm.metrics.distances import frechet_rows
from audioldm.nets.clap import load_in_space
from audioldm.nets.prior import Prior
from audioldm.pipeline.audioldm import AudioLDM
from audioldm.pipeline.guidance import GuidanceConfig
from audioldm.signal.level import normalise_peak
from audioldm.training.preference import REFUSED, reward
from recipes.embedded.model_lease import half

HELD, QUIET, AT_ONCE = 240, 0.02, 64
"""held-out clips; peak below which a clip is silent; clips that are drawn at once"""


class Judge:
    """Prompts, held-out clips and the tagger; ``rows`` by name, written to ``out`` as they come."""

    def __init__(self, args: argparse.Namespace, device: torch.device) -> None:
        self.args, self.device = args, device
        folder = yamnet.data_folder()
        self.net, self.names = yamnet.Net(folder / yamnet.ARCHIVE, device), yamnet.class_names(folder)
        prompts, _ = read_prompts(args.prompts, self.names)
        prompts = prompts[: args.few]
        self.prompts = [prompt.text for prompt in prompts]
        self.right = [
            {i for i, name in enumerate(self.names) if fits(name, prompt.classes)} for prompt in prompts
        ]
        held = sorted((row for row in rows_of(args.clips) if row.captions), key=lambda row: row.path)
        self.held = held[:: max(1, len(held) // HELD)][: args.few]
        self.waves: dict[int, Tensor] = {}
        self.rows: dict[str, Any] = json.loads(args.out.read_text()) if args.out.exists() else {}

    def keep(self, name: str, row: dict[str, Any]) -> None:
        self.rows[name] = row
        self.args.out.write_text(json.dumps(self.rows, indent=1) + "\n", encoding="utf-8")
        shown = {k: round(v, 4) if isinstance(v, float) else v for k, v in row.items() if k != "right"}
        print(name, shown, flush=True)

    def real(self, samples: int, rate: int) -> Tensor:
        """The held-out clips (B, N), at most so long, zeros behind."""
        if samples not in self.waves:
            waves = [normalise_peak(decode(row.path, rate)[None, :samples])[0] for row in self.held]
            self.waves[samples] = torch.stack([nnf.pad(wave, (0, samples - len(wave))) for wave in waves])
        return self.waves[samples]

    @torch.no_grad()
    def tags(self, waves: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings (B, P, 1024) and scores (B, P, 521), Silence left out, on the CPU."""
        parts: list[list[Tensor]] = [[], []]
        for wave in waves.split(AT_ONCE):
            patches = yamnet.patches(normalise_peak(wave.to(self.device)))
            for part, values in zip(parts, self.net(patches.flatten(0, 1)), strict=True):
                part.append(values.unflatten(0, patches.shape[:2]).cpu())
        embeddings, scores = torch.cat(parts[0]), torch.cat(parts[1]).sigmoid()
        scores[..., self.names.index(IGNORED)] = 0
        return embeddings, scores

    def hits(self, scores: Tensor) -> list[bool]:
        """Of clips' scores (B, 521), prompts in turn: whether each is recognised."""
        top = scores.topk(HIGHEST)
        rows = enumerate(zip(top.values.tolist(), top.indices.tolist(), strict=True))
        return [
            any(p >= LEAST and i in self.right[n % len(self.right)] for p, i in zip(*row, strict=True))
            for n, row in rows
        ]

    @torch.no_grad()
    def draw(self, pipe: AudioLDM, vectors: Tensor, first: int, seconds: float, **options: Any) -> Tensor:
        """Waves (B, N) under vectors (B, D), the seeds from ``first`` on."""
        waves, empty = [], pipe.encode_text([""])
        for at, film in zip(range(first, first + len(vectors), AT_ONCE), vectors.split(AT_ONCE), strict=True):
            seeds, none = list(range(at, at + len(film))), empty.repeat(len(film))
            with half(self.device):
                latent = pipe.sample(Condition(film=film), none, seeds=seeds, seconds=seconds, **options)
            waves.append(pipe.decode(latent.float(), seconds=seconds))
        return torch.cat(waves).cpu()

    @torch.no_grad()
    def __call__(self, name: str, pipe: AudioLDM, seconds: float, **options: Any) -> None:
        """A row: what a tagger, spectra, levels and the reward say of a pipeline."""
        begin, rate, samples, seeds = time.time(), pipe.spec.rate, pipe.spec.samples(seconds), self.args.seeds
        real = self.real(samples, rate)
        if (key := f"held-out clips, {seconds:g} s") not in self.rows:
            self.keep(key, sound_of(real, rate))
        vectors = torch.cat([pipe.clap.embed_text(self.prompts)] * seeds)
        waves = self.draw(pipe, through_prior(pipe, vectors, 0), 0, seconds, **options)
        embeddings, scores = self.tags(waves)
        by_mean, by_largest = self.hits(scores.mean(1)), self.hits(scores.amax(1))
        each = nnf.normalize(embeddings.mean(1), dim=-1).unflatten(0, (seeds, -1))
        near = torch.einsum("spd,tpd->stp", each, each)[~torch.eye(seeds, dtype=torch.bool)]
        rewards = reward(pipe, waves.to(self.device), vectors)
        captions = pipe.clap.embed_text([row.captions[0] for row in self.held])
        sounds = self.draw(pipe, through_prior(pipe, captions, 5000), 5000, seconds, **options)
        patches = [self.tags(part)[0].flatten(0, 1) for part in (sounds, real)]
        self.keep(name, {
            "clips": len(waves), "recognised, mean": sum(by_mean) / len(waves),
            "recognised, largest": sum(by_largest) / len(waves), "FD": float(frechet_rows(*patches)),
            "diversity": float(1 - near.mean()), "reward": float(rewards[rewards > REFUSED].mean()),
            "refused": float((rewards == REFUSED).float().mean()), **sound_of(waves, rate),
            "right": "".join(str(int(hit)) for hit in by_largest), "s": round(time.time() - begin),
        })  # fmt: skip


def through_prior(pipe: AudioLDM, vectors: Tensor, first: int) -> Tensor:
    """Texts' vectors (B, D) as they are, or those that the pipeline's prior draws, the seeds from ``first`` on."""
    if pipe.prior is None:
        return vectors
    seeds = list(range(first, first + len(vectors)))
    return pipe.prior.sample(vectors, pipe.clap.embed_text([""])[0], seeds=seeds)


def sound_of(waves: Tensor, rate: int) -> dict[str, float]:
    """What rate, clipping, loudness, length and start leave in sounds (B, N), and the share that is silent."""
    peak = waves.abs().amax(1)
    loud = waves[peak > QUIET]
    top = loud.abs().amax(1, keepdim=True)
    window = torch.hann_window(1024)
    power = torch.stft(loud, 1024, 512, window=window, return_complex=True).abs().square().mean(2)
    lines = torch.arange(513) * rate / 1024 >= 4000
    lufs = torch.cat([taf.loudness(part[:, None], rate) for part in loud.split(AT_ONCE)])
    lufs, frames = lufs[lufs.isfinite()], loud.unfold(1, rate // 20, rate // 20).square().mean(2).sqrt()
    first, whole = (part.square().mean(1).sqrt() for part in (loud[:, : rate // 10], loud))
    return {
        "silent": float((peak <= QUIET).float().mean()),
        "above 4 kHz, dB": float(
            (10 * (power[:, lines].sum(1) / power.sum(1)).clamp(min=1e-9).log10()).mean()
        ),
        "flat tops": float((loud.abs() > 0.98 * top).float().mean()),
        "LUFS": float(lufs.mean()), "LUFS, deviation": float(lufs.std()),
        "peak, deviation in dB": float((20 * peak[peak > QUIET].log10()).std()),
        "seconds above -40 dB": float((frames > 0.01 * top).float().mean() * waves.shape[1] / rate),
        "first .1 s, dB to the whole": float((20 * (first / whole).clamp(min=1e-4).log10()).mean()),
        "begin above -20 dB": float((first / whole > 0.1).float().mean()),
    }  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="+", help="embedded, or model folders")
    parser.add_argument("--prompts", type=Path, required=True)
    parser.add_argument("--clips", type=Path, required=True, help="held-out sounds with captions")
    parser.add_argument(
        "--facts", action="append", help="of a model with micro-conditioning: rate=8000,start=5"
    )
    parser.add_argument("--seconds", type=float, nargs="*", default=[5.12])
    parser.add_argument("--seeds", type=int, default=4, help="of each prompt")
    parser.add_argument("--refiner", help="a model for the lowest noise levels")
    parser.add_argument(
        "--prior", type=Path, help="of recipe caption/prior; the text's vector goes through it"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--few", type=int, help="prompts and clips: a rehearsal")
    parser.add_argument("-o", "--out", type=Path, default=Path("judge.json"))
    args = parser.parse_args(argv)
    judge = Judge(args, torch.device(args.device))
    for model in args.models:
        pipe = AudioLDM.from_pretrained(None if model == "embedded" else model, device=args.device)
        if args.prior:
            pipe = replace(pipe, prior=load_in_space(args.prior, Prior, pipe.clap, "caption/prior"))
        options: dict[str, Any] = {}
        if args.refiner:
            refiner = AudioLDM.from_pretrained(args.refiner, device=args.device)
            options = {"guidance_config": GuidanceConfig(refiner=refiner)}
        for facts in args.facts or [""]:
            for seconds in args.seconds:
                length = f", {seconds:g} s" if args.seconds != [5.12] else ""
                asked = pipe
                if facts:
                    controls = with_facts(pipe, parse_facts(facts.split(",")))
                    asked = replace(pipe, controls=tuple(controls))
                judge(f"{model}{facts and ', ' + facts}{length}", asked, seconds, **options)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
