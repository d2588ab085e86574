"""Trains and judges on a rented GPU what docs/tricks.md says of priors, facts, offset noise and preferences.

    python -m recipes.finetune.lease unclip --sounds DIR --rows rows.json --out DIR --seconds 600 ...
    python -m recipes.finetune.lease tricks --sounds DIR --rows rows.json --out DIR --seconds 600 ...

``--sounds`` holds opensounds2's tars, ``--rows`` is ``rows`` of its manifest (``audioldm data prepare opensounds2``).
unclip: two U-Nets from scratch on the same latents, one conditioned on sounds' vectors and one on captions', and a
prior (DALL-E 2 against Stable Diffusion).   tricks: the embedded model trained further with facts, with offset noise,
by expert iteration and by DPO, each beside the same without.   Nothing that judges reads CLAP, except ``reward``, which
is what preferences are trained on.   Shares of ``--seconds`` say how long each trains.   B batch, N samples.
"""

import argparse
import io
import json
import math
import re
import tarfile
import time
from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

import soundfile
import torch
import torchaudio.functional as taf
from torch import Tensor, nn
from torch.nn import functional as nnf

from audioldm.batch import Condition, LatentBatch
from audioldm.control.controls import MicroControl
from audioldm.diffusion import objective
from audioldm.evaluation.embedders import yamnet
from audioldm.metrics.distances import frechet_rows
from audioldm.nets.folder import save_component
from audioldm.nets.unet import net_call
from audioldm.pipeline.audioldm import AudioLDM
from audioldm.signal.level import normalise_peak
from audioldm.signal.mel import LogMel
from audioldm.training.finetune import FineTune
from audioldm.training.preference import REFUSED, Preference, reward
from audioldm.training.prior import PriorTraining, build_prior
from audioldm.training.speed import RecordedStep
from recipes.embedded.captions import INSTRUMENTS, kind, wordings
from recipes.embedded.model_lease import WINDOW, Bank, Windows, adamw, descend, follow, half, set_rate
from recipes.embedded.model_parts import TEMPER

RATE, SEEDS, HELD = 16000, 4, 240
"""seeds of each open prompt; held-out captions that are drawn for"""
Clip = tuple[Tensor, dict[str, Any]]
BAD = {"rate": 8000.0, "clipping": 0.05}


def read_sounds(folder: Path, rows: Path, limit: int | None) -> list[Clip]:
    """The clips as int16 with their peaks at full scale, and their rows."""
    known = json.loads(rows.read_text())
    data: dict[str, bytes] = {}
    for tar in sorted(folder.glob("audio-*.tar")):
        with tarfile.open(tar) as file:
            for member in file:
                if member.name in known and (content := file.extractfile(member)):
                    data[member.name] = content.read()
                if limit and len(data) >= limit:
                    break

    def decoded(name: str) -> Clip:
        wave = torch.from_numpy(soundfile.read(io.BytesIO(data[name]), dtype="float32")[0])
        wave = wave - wave.mean()
        return (wave / wave.abs().max().clamp(min=1e-3) * 32767).round().to(torch.int16), known[name]

    with ThreadPool(8) as pool:
        return pool.map(decoded, sorted(data))


class Judge:
    """Draws sounds with a pipeline and says what a tagger, their spectra and their levels are."""

    def __init__(self, args: argparse.Namespace, pipe: AudioLDM, held: list[Clip], out: Path) -> None:
        self.pipe, self.out, self.results = pipe, out, dict[str, Any]()
        self.device, self.full = pipe.device, args.full
        stored = torch.load(args.yamnet, weights_only=True)
        self.net = yamnet.Net.__new__(yamnet.Net)
        self.net.layers = [
            ([p.float().to(pipe.device) for p in params], how) for params, how in stored["layers"]
        ]
        lines = [line.split("\t") for line in args.prompts.read_text().splitlines() if line.strip()][
            : args.few
        ]
        names = stored["names"]
        self.silence, self.prompts = names.index("Silence"), [line[0] for line in lines]
        self.right = [
            [i for i, name in enumerate(names) if any(name.startswith(part) for part in line[1].split("|"))]
            for line in lines
        ]
        held = held[:: max(1, len(held) // HELD)][: args.few and 4 * args.few]
        self.captions = [row["caption"] for _, row in held]
        waves = torch.stack(
            [nnf.pad(wave[:WINDOW].float() / 32767, (0, max(0, WINDOW - len(wave)))) for wave, _ in held]
        )
        self.real = 0.5 * waves
        self.embeddings = self.tags(self.real)[0].flatten(0, 1)
        self.results["real"] = self.sound_of(self.real)
        with torch.no_grad():
            self.empty = pipe.encode_text([""])

    @torch.no_grad()
    def tags(self, waves: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings (B, P, 1024) and scores (B, P, 521), on the CPU."""
        parts = []
        for wave in waves.split(64):
            patches = yamnet.patches(normalise_peak(wave.to(self.device)))
            embeddings, logits = self.net(patches.flatten(0, 1))
            parts.append(
                (
                    embeddings.unflatten(0, patches.shape[:2]).cpu(),
                    logits.sigmoid().unflatten(0, patches.shape[:2]).cpu(),
                )
            )
        embeddings, scores = (torch.cat(part) for part in zip(*parts, strict=True))
        return embeddings, scores

    @torch.no_grad()
    def draw(self, pipe: AudioLDM, film: Tensor, first: int, **options: Any) -> Tensor:
        """Waves (B, N) under vectors (B, D), the seeds from ``first`` on."""
        waves = []
        for at in range(0, len(film), 64):
            part = film[at : at + 64]
            seeds = list(range(first + at, first + at + len(part)))
            with half(self.device):
                latent = pipe.sample(
                    Condition(film=part), self.empty.repeat(len(part)), seeds=seeds, seconds=5.12, **options
                )
            waves.append(pipe.decode(latent.float(), seconds=5.12))
        return torch.cat(waves)

    def sound_of(self, waves: Tensor) -> dict[str, float]:
        """What rate, clipping, loudness and length leave in sounds (B, N) that are not silent, and the silent share."""
        peak = waves.abs().amax(1)
        loud = waves[peak > 0.02]
        top = loud.abs().amax(1, keepdim=True)
        power = (
            torch.stft(loud, 1024, 512, window=torch.hann_window(1024), return_complex=True)
            .abs()
            .square()
            .mean(2)
        )
        lufs = torch.cat([taf.loudness(part[:, None], RATE) for part in loud.split(64)])
        lufs = lufs[lufs.isfinite()]
        frames = loud.unfold(1, 800, 800).square().mean(2).sqrt()
        return {
            "silent": float((peak <= 0.02).float().mean()),
            "above 4 kHz, dB": float(
                (10 * (power[:, 256:].sum(1) / power.sum(1)).clamp(min=1e-9).log10()).mean()
            ),
            "flat tops": float((loud.abs() > 0.98 * top).float().mean()),
            "LUFS": float(lufs.mean()),
            "LUFS, deviation": float(lufs.std()),
            "peak, deviation in dB": float((20 * peak[peak > 0.02].log10()).std()),
            "seconds above -40 dB": float((frames > 0.01 * top).float().mean() * WINDOW / RATE),
        }

    @torch.no_grad()
    def __call__(
        self, name: str, pipe: AudioLDM | None = None, *,
        film: Callable[[Tensor, int], Tensor] = lambda text, first: text,
        held: Tensor | None = None, about: dict[str, Any] | None = None, **options: Any,
    ) -> None:  # fmt: skip
        """Recognised share, diversity, FD, spectra and levels, and the reward, of a pipeline; ``film`` makes vectors of
        texts' (and the first seed), ``held`` (n, D) stands for those of the held-out captions.
        """
        pipe, begin = pipe or self.pipe, time.time()
        text = torch.cat([pipe.clap.embed_text(self.prompts)] * SEEDS)
        waves = self.draw(pipe, film(text, 0), 0, **options)
        embeddings, scores = self.tags(waves)
        right: dict[str, float] = {}
        rows: dict[str, list[bool]] = {}
        for pooled, values in (("mean", scores.mean(1)), ("largest", scores.amax(1))):
            values[:, self.silence] = 0
            top = values.topk(5)
            rows[pooled] = [
                any(
                    i in self.right[n % len(self.prompts)] and p >= 0.2
                    for p, i in zip(ps, index, strict=True)
                )
                for n, (ps, index) in enumerate(zip(top.values.tolist(), top.indices.tolist(), strict=True))
            ]
            right[f"recognised, {pooled}"] = sum(rows[pooled]) / len(rows[pooled])
        each = nnf.normalize(embeddings.mean(1), dim=-1).unflatten(0, (SEEDS, -1))
        near = torch.einsum("spd,tpd->stp", each, each)
        off = ~torch.eye(SEEDS, dtype=torch.bool)
        rewards = reward(pipe, waves, text)
        sounds = waves
        if self.full or held is not None:
            vectors = film(pipe.clap.embed_text(self.captions), 5000) if held is None else held
            sounds = self.draw(pipe, vectors, 5000, **options)
            right["FD"] = frechet_rows(self.tags(sounds)[0].flatten(0, 1), self.embeddings)
        self.results[name] = {
            **right,
            "diversity": float(1 - near[off].mean()),
            "reward": float(rewards[rewards > REFUSED].mean()),
            "refused": float((rewards == REFUSED).float().mean()),
            **self.sound_of(waves),
            "right": "".join(str(int(hit)) for hit in rows["largest"]),
            **(about or {}),
        }
        (self.out / "results.json").write_text(json.dumps(self.results, indent=1))
        shown = {
            k: round(v, 4) if isinstance(v, float) else v
            for k, v in self.results[name].items()
            if k != "right"
        }
        print(name, shown, f"{time.time() - begin:.0f} s", flush=True)


def warmed(progress: float, step: int, floor: float = 0.1) -> float:
    """Share of the learning rate: 100 batches of warm-up, then half a cosine to ``floor``."""
    return min(1.0, (step + 1) / 100) * (
        floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    )


def learn(
    module: Any,
    batch: Callable[[], LatentBatch],
    seconds: float,
    device: torch.device,
    *,
    decay: float = 0.995,
) -> dict[str, Any]:
    """Train a module for so many seconds by the clock; its U-Net's average takes the place of its U-Net."""
    torch.manual_seed(0)
    module.to(device)
    if isinstance(module, FineTune):
        module.schedule = module.schedule.to(device)
    parameters = [p for net in module.components().values() for p in net.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, module.lr, weight_decay=0.01, fused=device.type == "cuda")
    average = {name: deepcopy(net).eval() for name, net in module.components().items()}
    begin, losses = time.time(), []
    module.train()
    while (spent := time.time() - begin) < seconds or module.batch_count < 2:
        module.batch_count += 1
        for group in optimizer.param_groups:
            group["lr"] = module.lr * warmed(spent / seconds, module.batch_count)
        with half(device):
            terms = module.training_step(batch(), 0)
        optimizer.zero_grad()
        terms["loss"].backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        for name, net in module.components().items():
            follow(average[name], net, min(decay, module.batch_count / (module.batch_count + 10)))
        losses.append(terms["loss"].detach())
    for name, net in module.components().items():
        net.load_state_dict(average[name].state_dict())
    module.eval()
    tail = torch.stack(losses[-100:]).float().mean()
    return {"batches": module.batch_count, "seconds": round(time.time() - begin), "loss": float(tail)}


class Latents:
    """Windows of clips as posteriors on the card, as they are and degraded, with facts; batches drawn from them."""

    @torch.no_grad()
    def __init__(self, clips: list[Clip], pipe: AudioLDM, *, degraded: bool) -> None:
        device, rng = pipe.device, torch.Generator().manual_seed(0)
        mel_of, parts = LogMel(pipe.spec).to(device), []
        for at in range(0, len(clips), 128):
            waves, facts = [], []
            for wave, row in clips[at : at + 128]:
                start = int(torch.randint(max(1, len(wave) - WINDOW), (1,), generator=rng))
                piece = wave[start : start + WINDOW].float() / 32767
                waves.append(nnf.pad(piece, (0, WINDOW - len(piece))))
                facts.append([start / RATE, len(wave) / RATE, row["rate"], row["loudness"], row["clipping"]])
            batch, table = torch.stack(waves).to(device), torch.tensor(facts)
            if degraded:
                batch, table = worse(batch, table, rng)
            batch = normalise_peak(batch)
            with half(device):
                posterior = pipe.vae.encode(mel_of(batch[:, None])).latent_dist
                audio = nnf.normalize(pipe.clap.audio_encoder(batch[:, None]).float(), dim=-1)
            text = pipe.clap.embed_text([row["caption"] for _, row in clips[at : at + 128]])
            parts.append((posterior.mean.float(), posterior.std.float(), text, audio, table.to(device)))
        self.columns = [torch.cat(column) for column in zip(*parts, strict=True)]

    def __len__(self) -> int:
        return len(self.columns[0])

    def __getitem__(self, place: int) -> LatentBatch:
        mean, std, text, audio, facts = (column[place].cpu() for column in self.columns)
        return LatentBatch(mean, std, text, audio, facts=facts)

    def batch(self, rows: int, *others: "Latents") -> Callable[[], LatentBatch]:
        """Draws ``rows``, of these and others alike."""
        columns = [
            torch.cat(column)
            for column in zip(self.columns, *(other.columns for other in others), strict=True)
        ]

        def drawn() -> LatentBatch:
            index = torch.randint(len(columns[0]), (rows,), device=columns[0].device)
            mean, std, text, audio, facts = (column[index] for column in columns)
            return LatentBatch(mean, std, text, audio, facts=facts)

        return drawn


def worse(waves: Tensor, facts: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Each sound (B, N) without what lies above 4 kHz (a rate of 8,000 Hz), clipped, or both; and the facts."""
    low, cut = (torch.rand(len(waves), generator=rng) < 0.5 for _ in range(2))
    low |= ~cut
    spectrum = torch.fft.rfft(waves)
    line = torch.arange(spectrum.shape[1], device=waves.device) * RATE / waves.shape[1] < 4000
    waves = torch.where(
        low.to(waves.device)[:, None], torch.fft.irfft(spectrum * line, n=waves.shape[1]), waves
    )
    gain = 10 ** ((12 + 12 * torch.rand(len(waves), generator=rng)) / 20)
    clipped = (normalise_peak(waves, peak=1.0) * gain.to(waves.device)[:, None]).clamp(-1, 1)
    share = (clipped.abs() >= 1).float().mean(1).cpu()
    waves = torch.where(cut.to(waves.device)[:, None], clipped, waves)
    facts = facts.clone()
    facts[:, 2] = torch.where(low, torch.full_like(share, BAD["rate"]), facts[:, 2])
    facts[:, 4] = torch.where(cut, share, facts[:, 4])
    return waves, facts


def shown(judge: Judge, name: str, module: Any, how: dict[str, Any], **options: Any) -> None:
    """Judge the embedded model with the U-Net of ``module``."""
    judge.pipe.unet.load_state_dict(module.unet.state_dict())
    judge(name, about=how, **options)


def facts(
    args: argparse.Namespace, clean: Latents, bad: Latents, judge: Judge, full: dict[str, Any], end: float
) -> None:
    """Half of the data bad: without facts, and with them, asked for."""
    mixed = clean.batch(args.batch // 2, bad)
    plain = FineTune(**full, lr=1e-4)
    shown(judge, "half of the data bad", plain, learn(plain, mixed, 0.13 * args.seconds, judge.device))
    del plain
    micro = FineTune(**full, lr=1e-4, micro=True)
    assert micro.micro is not None
    micro.micro.register_to_config(usual=clean.columns[4].abs().median(0).values.tolist())
    how = learn(micro, mixed, 0.13 * args.seconds, judge.device)
    save_component(micro.micro.cpu(), args.out / "micro")
    micro.micro.to(judge.device)
    asked: dict[str, dict[str, float]] = {
        "facts: usual": {}, "facts: rate 8000": {"rate": 8000.0}, "facts: rate 44100": {"rate": 44100.0},
        "facts: clipping .1": {"clipping": 0.1}, "facts: clipping 0": {"clipping": 0.0},
        "facts: loudness -40": {"loudness": -40.0}, "facts: loudness -12": {"loudness": -12.0},
        "facts: seconds .5": {"seconds": 0.5}, "facts: seconds 10": {"seconds": 10.0},
    }  # fmt: skip
    for name, facts in asked.items():
        with_facts = replace(judge.pipe, controls=(MicroControl(micro.micro, facts),))
        shown(judge, name, micro, {**how, **{f"asked {k}": v for k, v in facts.items()}}, pipe=with_facts)
    del micro


def offset(
    args: argparse.Namespace, clean: Latents, bad: Latents, judge: Judge, full: dict[str, Any], end: float
) -> None:
    """Offset noise beside none."""
    for name, amount in (("trained further", 0.0), ("offset noise .1", 0.1)):
        module = FineTune(**full, lr=1e-4, offset_noise=amount)
        shown(
            judge,
            name,
            module,
            learn(module, clean.batch(args.batch // 2), 0.08 * args.seconds, judge.device),
        )


def preferences(
    args: argparse.Namespace, clean: Latents, bad: Latents, judge: Judge, full: dict[str, Any], end: float
) -> None:
    """Expert iteration with and without real data, and DPO, from the same draws."""
    begin, drawn = time.time(), dict[str, Tensor]()
    for name, choice, part in (
        ("expert", {"lr": 3e-5, "drop": 0.1}, 0.08),
        ("expert, no real data", {"lr": 1e-4, "drop": 0.1, "real": 0.0}, 0.08),
        ("DPO", {"method": "dpo", "lr": 1e-5, "weighting": "uniform"}, 0.1),
    ):
        if time.time() + part * args.seconds > end + 0.1 * args.seconds:
            print(name, "left out", flush=True)
            continue
        choice = {**full, "captions": args.draws, **choice}
        preference = Preference(**choice).to(judge.device)
        if not drawn:
            drawn = preference.candidates(clean)
            rewards, good = drawn["rewards"], drawn["rewards"] > REFUSED
            print(f"{rewards.numel()} drawn in {time.time() - begin:.0f} s, {int((~good).sum())} refused, mean "
                  f"{rewards[good].mean():.3f}, best {rewards.amax(1).mean():.3f}", flush=True)  # fmt: skip
        preference.sounds, preference.before = drawn, [net.to(judge.device) for net in preference.before]
        shown(judge, name, preference, learn(preference, clean.batch(32), part * args.seconds, judge.device))


def tricks(args: argparse.Namespace, clips: list[Clip], held: list[Clip], device: torch.device) -> None:
    """Facts, offset noise and preferences, each beside the same training without."""
    pipe = AudioLDM.from_pretrained(None, device=device.type)
    clean, bad = (Latents(clips, pipe, degraded=degraded) for degraded in (False, True))
    judge, end = Judge(args, pipe, held, args.out), time.time() + args.seconds
    print(f"{len(clean)} windows, twice", flush=True)
    judge("embedded")
    common: dict[str, Any] = {"model": None, "prompt": None, "batches": 10**6, "seed": 0}
    full: dict[str, Any] = {**common, "kind": "full", "weighting": "min_snr", "text_prob": 1.0, "drop": 0.1}
    for part in args.parts:
        {"facts": facts, "offset": offset, "preferences": preferences}[part](
            args, clean, bad, judge, full, end
        )


def unclip(args: argparse.Namespace, clips: list[Clip], held: list[Clip], device: torch.device) -> None:
    """A U-Net on sounds' vectors, one on captions', a prior; what each makes of words."""
    counts = Counter(kind(row["caption"]) for _, row in clips)
    for _, row in clips:
        row |= {"kind": kind(row["caption"]), "texts": wordings(row["caption"])}
        row["repeats"] = re.search(INSTRUMENTS, row["kind"]) is None
        row["weight"] = counts[row["kind"]] ** -TEMPER
    windows = Windows(clips, device)
    pipe = AudioLDM.from_pretrained(None, device=device.type)
    judge, mel_of, factor = (
        Judge(args, pipe, held, args.out),
        LogMel(pipe.spec).to(device),
        pipe.vae.config.scaling_factor,
    )
    with torch.no_grad():
        table = torch.cat(
            [pipe.clap.embed_text(windows.texts[at : at + 512]) for at in range(0, len(windows.texts), 512)]
        )

    def fresh(count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Latents, sounds' vectors and texts of windows that were drawn now."""
        wave, text, _ = windows.draw(count, WINDOW, pairs=False)
        with half(device):
            posterior = pipe.vae.encode(mel_of(wave[:, None])).latent_dist
            audio = nnf.normalize(pipe.clap.audio_encoder(wave[:, None]).float(), dim=-1)
        mean = posterior.mean.float()
        return (mean + posterior.std.float() * torch.randn_like(mean)) * factor, audio, text

    bank = Bank(fresh, args.bank, 16, device)
    print(f"{len(clips)} clips, {len(windows.texts)} texts, a bank of {bank.size}", flush=True)
    empty = pipe.clap.embed_text([""]).detach()
    prior = PriorTraining(build_prior(pipe.clap), empty=empty[0], batches=10**6, lr=1e-3)

    def pairs() -> LatentBatch:
        index = torch.randint(bank.size, (512,), device=device)
        audio = bank.columns[1][index].float()
        return LatentBatch(audio, audio, table[bank.columns[2][index]], audio)

    prior.to(device)
    how = learn(prior, pairs, 0.06 * args.seconds, device, decay=0.999)
    print("prior", how, flush=True)
    save_component(prior.prior, args.out / "prior", dtype=torch.float16)
    with torch.no_grad():
        windows_of = 0.5 * torch.stack(
            [
                nnf.pad(wave[:WINDOW].float() / 32767, (0, max(0, WINDOW - len(wave))))
                for wave, _ in held[:512]
            ]
        )
        sounds = torch.cat([pipe.clap.embed_audio(part[:, None].to(device)) for part in windows_of.split(64)])
        text = pipe.clap.embed_text([row["caption"] for _, row in held[:512]])
        report: dict[str, Any] = dict(how)
        vectors = {"text": text, "drawn": prior.prior.sample(text, empty[0], seeds=list(range(len(text))))}
        for name, vector in vectors.items():
            report[name] = {
                "cosine": float((vector * sounds).sum(1).mean()),
                "gap": float((vector.mean(0) - sounds.mean(0)).norm()),
            }
        judge.results["prior"] = report
        real = pipe.clap.embed_audio(judge.real[:, None].to(device))

    def through(vector: Tensor, first: int) -> Tensor:
        return prior.prior.sample(vector, empty[0], seeds=list(range(first, first + len(vector))))

    judge("embedded, the text's vector")
    judge("embedded, the prior's vector", film=through)
    for source in ("sounds", "captions"):
        how = from_scratch(args, pipe, bank, None if source == "sounds" else table)
        judge(f"U-Net on {source}, the text's vector", about=how)
        judge(f"U-Net on {source}, the prior's vector", film=through)
        judge(f"U-Net on {source}, sounds' own vectors", held=real)


def from_scratch(
    args: argparse.Namespace, pipe: AudioLDM, bank: Bank, table: Tensor | None
) -> dict[str, Any]:
    """Train a U-Net from nothing on the bank, on sounds' vectors or on those of the texts in ``table`` (n, D); its
    average takes the place of the pipeline's.
    """
    torch.manual_seed(0)
    device, seconds = pipe.device, 0.33 * args.seconds
    net: Any = type(pipe.unet).from_config(pipe.unet.config).to(device)
    average, empty = deepcopy(net).eval(), pipe.clap.embed_text([""]).detach()
    optimizer = adamw(net.parameters(), 5e-4, device, (0.9, 0.99))
    call, schedule = net_call(net), pipe.schedule.to(device)
    even = torch.arange(args.batch, device=device, dtype=torch.float64) / args.batch

    def step(dummy: Tensor) -> dict[str, Tensor]:
        with torch.no_grad():
            z, audio, place = bank.draw(args.batch)
            film = audio if table is None else table[place]
            film = film + torch.randn_like(film) * (0.5 * torch.rand(args.batch, 1, device=device) / 16)
            dropped = torch.rand(args.batch, 1, device=device) < 0.1
            film = torch.where(dropped, empty, nnf.normalize(film, dim=-1))
            u = (even + torch.rand(1, device=device, dtype=torch.float64)) % 1
            t = (u * schedule.length).long().clamp(max=schedule.length - 1)
            noise = torch.randn_like(z)
        with half(device):
            predicted = lambda x, times: call(x, times, Condition(film=film)).float()  # noqa: E731
            losses = objective.loss(predicted, z, t, noise, schedule, "v", "min_snr")
        loss = losses.float().mean()
        norm = descend(loss, optimizer, 1.0)
        follow(average, net, 0.999)
        return {"loss": loss.detach(), "norm": norm}

    run: Callable[..., Any] = RecordedStep(step) if device.type == "cuda" and not args.eager else step
    begin, count, dummy, total = time.time(), 0, torch.zeros(1, device=device), torch.zeros((), device=device)
    while (spent := time.time() - begin) < seconds or count < 2:
        set_rate(optimizer, 5e-4 * warmed(spent / seconds, count, 0.02))
        total = 0.99 * total + 0.01 * run(dummy)["loss"]
        count += 1
    pipe.unet.load_state_dict(average.state_dict())
    return {"batches": count, "seconds": round(time.time() - begin), "loss": float(total)}


def main() -> None:
    """Read the command line and train until the clock says so."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("unclip", "tricks"))
    for name in ("sounds", "rows", "out", "yamnet", "prompts"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument(
        "--rows-of-batch", dest="batch", type=int, default=128, help="of the U-Nets from scratch"
    )
    parser.add_argument("--bank", type=int, default=24576)
    parser.add_argument("--draws", type=int, default=192, help="captions that preferences are drawn for")
    parser.add_argument("--parts", nargs="*", default=["facts", "offset", "preferences"], help="of tricks")
    parser.add_argument("--limit", type=int, help="clips: a rehearsal")
    parser.add_argument("--few", type=int, help="prompts: a rehearsal")
    parser.add_argument("--full", action="store_true", help="FD of everything that is judged")
    parser.add_argument("--eager", action="store_true")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    begin = time.time()
    sounds = read_sounds(args.sounds, args.rows, args.limit)
    clips = [clip for clip in sounds if clip[1]["split"] == "train"]
    held = [clip for clip in sounds if clip[1]["split"] != "train"]
    print(f"{time.time() - begin:.0f} s: {len(clips)} clips, {len(held)} held out", flush=True)
    {"unclip": unclip, "tricks": tricks}[args.what](args, clips, held, device)


if __name__ == "__main__":
    main()
