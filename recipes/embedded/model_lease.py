"""Trains the embedded model's autoencoder, CLAP and U-Net on rented GPUs against the clock.

    python -m recipes.embedded.model_lease vae  --out DIR --minutes 7 --channels 16 --kl 0.005 ...
    python -m recipes.embedded.model_lease clap --out DIR --minutes 5 --minilm DIR --yamnet FILE ...
    python -m recipes.embedded.model_lease unet --out DIR --minutes 12 --vae DIR --clap DIR --vocoder DIR ...
    python -m recipes.embedded.model_lease judge --out DIR --resume UNET --vae DIR --clap DIR --prompts FILE ...

All take ``--parts DIR`` (``model_parts``; folders may still come while it starts) and ``--need N``, the number of parts
to wait for.   Every window is drawn on the card: clips in proportion to their weights at three speeds, repeated with
pauses where that stays true of their captions, and pairs of clips under joined captions.   A file ``deadline`` in
``--out`` (seconds since 1970) moves the end, and with it the learning rate, which follows the clock.
"""

import argparse
import json
import math
import random
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

import soundfile
import torch
import torchaudio.functional as taf
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as nnf

from audioldm.batch import Condition
from audioldm.diffusion import objective
from audioldm.diffusion.schedule import audioldm_zero_snr
from audioldm.evaluation.embedders.yamnet import class_names
from audioldm.losses.adversarial import hinge_discriminator, hinge_generator
from audioldm.losses.latent import info_nce, kl_to_standard_normal
from audioldm.losses.spectral import mel_pyramid
from audioldm.metrics.distances import frechet_rows
from audioldm.nets.clap import TwoTowers, build_small_clap
from audioldm.nets.discriminators import PatchDiscriminator
from audioldm.nets.folder import load_component
from audioldm.nets.hifigan import vocode
from audioldm.nets.unet import build_unet, net_call
from audioldm.nets.vae import build_vae
from audioldm.signal.mel import LogMel
from audioldm.spec import AudioSpec
from audioldm.training.speed import RecordedStep
from recipes.embedded.phrasing import captions as joined
from recipes.embedded.phrasing import usable
from recipes.embedded.sound_bank import PEAK, gained
from recipes.embedded.tagger import Tagger

RATE, HOP, FRAMES = 16000, 160, 512
WINDOW = FRAMES * HOP
SPEEDS = (1.0, 20 / 21, 16 / 15)
"""ratios of small numbers, or resampling takes minutes"""
PAIRS, PAIR_SHARE = 6000, 0.15
TEXTS = 16
"""Texts that a clip has at most."""
WARMUP = 400
FILL = 256
"""windows that are drawn at once to fill a bank"""


def decoded(task: tuple[Path, dict[str, Any]]) -> tuple[Any, dict[str, Any]]:
    """A file as int16 at 16 kHz, its peak at full scale, and its row."""
    path, row = task
    wave, rate = soundfile.read(path, dtype="float32", always_2d=True)
    sound = torch.from_numpy(wave.mean(1))
    if rate != RATE:
        sound = taf.resample(sound, rate, RATE)
    sound = sound - sound.mean()
    sound = sound / sound.abs().max().clamp(min=1e-3)
    return (sound * 32767).round().to(torch.int16).numpy(), row


def read_parts(folder: Path, need: int, workers: int) -> list[tuple[Tensor, dict[str, Any]]]:
    """The sounds and rows of ``need`` parts; waits until they are there."""
    clips: list[tuple[Tensor, dict[str, Any]]] = []
    with ThreadPool(workers) as pool:
        for number in range(need):
            part = folder / f"part{number}"
            while not (part / "done").exists():
                time.sleep(1)
            rows = [json.loads(line) for line in (part / "list.jsonl").read_text().splitlines()]
            tasks = [(part / row["path"], row) for row in rows]
            clips += [(torch.from_numpy(wave), row) for wave, row in pool.imap(decoded, tasks, chunksize=16)]
    return clips


def read_valid(folder: Path, limit: int | None = None) -> list[tuple[Tensor, dict[str, Any]]]:
    """The held-out sounds, cut or filled to one window, peak 0.5, and their rows."""
    rows = [json.loads(line) for line in (folder / "list.jsonl").read_text().splitlines()][:limit]
    out = []
    for row in rows:
        wave, _ = decoded((folder / row["path"], row))
        wave = torch.from_numpy(wave)[:WINDOW].float() / 32767 * PEAK
        out.append((nnf.pad(wave, (0, WINDOW - len(wave))), row))
    return out


class Windows:
    """Sounds in the card's memory, and windows drawn there.   B rows, N samples; no draw reads anything back."""

    def __init__(
        self, clips: list[tuple[Tensor, dict[str, Any]]], device: torch.device, *, seed: int = 0
    ) -> None:
        self.device, gap = device, 64
        self.rows = [row for _, row in clips]
        lengths = torch.tensor([len(wave) for wave, _ in clips])
        begins = (lengths + gap).cumsum(0) - lengths - gap
        whole = torch.cat([nnf.pad(wave, (0, gap)) for wave, _ in clips]).to(device)
        sounds, self.begins, self.lengths, base = (
            [whole],
            [begins.to(device)],
            [lengths.to(device)],
            len(whole),
        )
        for speed in SPEEDS[1:]:
            # the whole at once, in pieces whose ends fall into gaps of other clips: a click of 4 ms at most there
            rate = round(RATE / speed)
            other = torch.cat([self.resampled(piece, rate) for piece in whole.split(1_600_000)])
            sounds.append(other)
            scale = len(other) / len(whole)
            self.begins.append(((begins * scale).round().long() + base).to(device))
            self.lengths.append((lengths * scale).floor().long().to(device))
            base += len(other)
        self.sound = torch.cat(sounds)
        self.begin, self.length = torch.stack(self.begins), torch.stack(self.lengths)
        weights = torch.tensor([row["weight"] for row in self.rows], dtype=torch.float64)
        self.chance = (weights.cumsum(0) / weights.sum()).to(device)
        self.repeats = torch.tensor([bool(row.get("repeats")) for row in self.rows], device=device)
        self.texts, places = self.vocabulary()
        self.text = places.to(device)
        self.count = (places >= 0).sum(1).to(device)
        self.pair = self.pairs(random.Random(seed)).to(device)
        names = sorted({row["kind"] for row in self.rows})
        self.kind = torch.tensor([names.index(row["kind"]) for row in self.rows], device=device)

    @staticmethod
    def resampled(piece: Tensor, rate: int) -> Tensor:
        """int16 (N,) at another rate."""
        wave = taf.resample(piece.float()[None], RATE, rate)[0]
        return wave.clamp(-32767, 32767).round().to(torch.int16)

    def vocabulary(self) -> tuple[list[str], Tensor]:
        """All texts of clips, and the places of each clip's (C, TEXTS), -1 where there is none."""
        index: dict[str, int] = {}
        places = torch.full((len(self.rows), TEXTS), -1)
        for number, row in enumerate(self.rows):
            for slot, text in enumerate(row["texts"][:TEXTS]):
                places[number, slot] = index.setdefault(text, len(index))
        return list(index), places

    def pairs(self, rng: random.Random) -> Tensor:
        """(P, 4): two clips, whether the second follows the first (1) or sounds beside it (0), and their text."""
        fit = [(i, texts) for i, row in enumerate(self.rows) if (texts := usable(tuple(row["texts"][:1])))]
        weights = [self.rows[i]["weight"] for i, _ in fit]
        known = {text: i for i, text in enumerate(self.texts)}
        table = []
        while fit and len(table) < PAIRS:
            (i, first), (j, second) = rng.choices(fit, weights, k=2)
            if self.rows[i]["kind"] == self.rows[j]["kind"]:
                continue
            shape = rng.choice(("together", "then", "over"))
            text = rng.choice(joined(shape, first[0], second[0]))
            if text not in known:
                known[text] = len(self.texts)
                self.texts.append(text)
            table.append((i, j, int(shape == "then"), known[text]))
        return torch.tensor(table or [(0, 0, 0, 0)])

    def read(self, choice: Tensor, speed: Tensor, place: Tensor) -> Tensor:
        """Samples ``place`` (B, N) of clips (B,) at one of SPEEDS, peak at 0.5; 0 outside."""
        length, begin = self.length[speed, choice][:, None], self.begin[speed, choice][:, None]
        inside = (place >= 0) & (place < length)
        index = begin + torch.minimum(place.clamp(min=0), length - 1)
        return self.sound[index].float() * (inside * (PEAK / 32767))

    def uniform(self, rows: int) -> Tensor:
        """(B,) in [0, 1)."""
        return torch.rand(rows, device=self.device)

    def chosen_clips(self, rows: int) -> Tensor:
        """(B,) clips by weight."""
        draw = torch.rand(rows, dtype=torch.float64, device=self.device)
        return torch.searchsorted(self.chance, draw).clamp(max=len(self.chance) - 1)

    def placed(self, choice: Tensor, samples: int) -> Tensor:
        """(B, N) windows: a long clip from somewhere, a short one near the window's start, once or repeated."""
        rows = len(choice)
        speed = (self.uniform(rows) * 5 - 2).clamp(min=0).long().clamp(max=len(SPEEDS) - 1)
        length = self.length[speed, choice]
        room = (samples - length).clamp(min=0)
        late = self.uniform(rows).square() * 0.5 * room
        early = self.uniform(rows) * (length - samples).clamp(min=0)
        early = early * (self.uniform(rows) > 0.3)
        start = torch.where(room > 0, -late, early).long()
        place = start[:, None] + torch.arange(samples, device=self.device)
        pause = RATE * (0.05 + 0.7 * self.uniform(rows).square())
        period = (length + pause.long()).clamp(min=RATE // 3)
        again = self.repeats[choice] & (self.uniform(rows) < 0.6)
        looped = torch.where(place >= 0, place % period[:, None], place)
        return self.read(choice, speed, torch.where(again[:, None], looped, place))

    def paired(self, rows: int, samples: int) -> tuple[Tensor, Tensor]:
        """(B, N) windows of two clips, and their texts (B,)."""
        pick = (self.uniform(rows) * len(self.pair)).long()
        first, second, follows, text = self.pair[pick].unbind(1)
        beside = (
            self.placed(first, samples)
            + self.placed(second, samples) * 10 ** (-0.4 * self.uniform(rows))[:, None]
        )
        time_ = torch.arange(samples, device=self.device)[None]
        turn = ((0.3 + 0.25 * self.uniform(rows)) * samples).long()[:, None]
        speed = torch.zeros_like(first)
        fade = ((turn - time_).float() / 320).clamp(0, 1)
        after = self.read(first, speed, time_.expand(rows, -1)) * fade + self.read(
            second, speed, time_ - turn
        )
        return torch.where(follows[:, None] > 0, after, beside), text

    def draw(self, rows: int, samples: int, *, pairs: bool = True) -> tuple[Tensor, Tensor, Tensor]:
        """Windows (B, N) with their peaks at 0.5, texts (B,) and kinds (B,), -1 for pairs."""
        several = round(rows * PAIR_SHARE) if pairs else 0
        choice = self.chosen_clips(rows - several)
        wave = self.placed(choice, samples)
        slot = (self.uniform(len(choice)).square() * self.count[choice]).long()
        text, kinds = self.text[choice, slot], self.kind[choice]
        if several:
            more, their = self.paired(several, samples)
            wave, text = torch.cat([wave, more]), torch.cat([text, their])
            kinds = torch.cat([kinds, torch.full_like(their, -1)])
        peak = wave.abs().amax(1, keepdim=True)
        return wave * (PEAK / peak.clamp(min=PEAK / 6)), text, kinds


class Clock:
    """Progress from 0 to 1 by the minutes; the deadline can be moved from outside."""

    def __init__(self, out: Path, minutes: float, steps: int | None) -> None:
        self.out, self.begin, self.steps = out, time.time(), steps
        self.end = self.begin + 60 * minutes
        self.looked = self.begin

    def progress(self, step: int) -> float:
        """The share of the time, or of ``steps``, that is over."""
        if self.steps:
            return step / self.steps
        now = time.time()
        if now - self.looked > 2:
            self.looked = now
            if (moved := self.out / "deadline").exists():
                self.end = float(moved.read_text())
        return (now - self.begin) / max(1e-3, self.end - self.begin)


def rate(progress: float, step: int) -> float:
    """Share of the learning rate: linear warm-up, then a cosine down to a hundredth."""
    return min(1.0, (step + 1) / WARMUP) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


def adamw(
    parameters: Any, lr: float, device: torch.device, betas: tuple[float, float], decay: float = 0.01
) -> Any:
    """AdamW whose rate is a tensor that a recorded step reads."""
    wide = [p for p in parameters if p.requires_grad]
    groups = [
        {"params": [p for p in wide if p.dim() > 1], "weight_decay": decay},
        {"params": [p for p in wide if p.dim() <= 1], "weight_decay": 0.0},
    ]
    cuda = device.type == "cuda"
    return torch.optim.AdamW(
        groups, lr=torch.tensor(lr, device=device), betas=betas, fused=cuda or None, capturable=cuda
    )


def set_rate(optimizer: Any, lr: float) -> None:
    """Write the rate where the recorded step reads it."""
    for group in optimizer.param_groups:
        group["lr"].fill_(lr)


def descend(loss: Tensor, optimizer: Any, clip: float) -> Tensor:
    """Backward, clip, step.   Gives the gradient's norm."""
    optimizer.zero_grad()
    loss.backward()
    gradients = [p.grad for g in optimizer.param_groups for p in g["params"] if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    torch._foreach_mul_(gradients, (clip / (norm + 1e-6)).clamp(max=1.0))
    if norm.is_cuda:
        # the fused step leaves out what is not finite
        optimizer.grad_scale, optimizer.found_inf = None, (~norm.isfinite()).float()
    optimizer.step()
    return norm.detach()


def half(device: torch.device) -> torch.autocast:
    """bfloat16 on a GPU."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda")


class Lines:
    """Means of the terms, printed every few seconds."""

    def __init__(self, every: float = 20.0) -> None:
        self.every, self.begin, self.sums, self.steps = every, time.time(), dict[str, Tensor](), 0
        self.mark = self.begin

    def add(self, step: int, terms: dict[str, Tensor]) -> None:
        """One step's terms."""
        self.steps += 1
        for name, value in terms.items():
            self.sums[name] = self.sums.get(name, 0) + value.detach()
        if step % 20 == 0 and time.time() - self.mark > self.every:
            values = "  ".join(f"{k} {float(v) / self.steps:.4g}" for k, v in self.sums.items())
            speed = self.steps / (time.time() - self.mark)
            print(f"{step}  {time.time() - self.begin:.0f} s  {speed:.1f}/s  {values}", flush=True)
            self.mark, self.sums, self.steps = time.time(), {}, 0


def recorded(
    function: Callable[..., Any], device: torch.device, args: argparse.Namespace
) -> Callable[..., Any]:
    """The function as a CUDA graph, where that is possible and wanted."""
    return RecordedStep(function) if device.type == "cuda" and not args.eager else function


def follow(average: nn.Module, net: nn.Module, decay: float) -> None:
    """Exponential moving average of the weights."""
    with torch.no_grad():
        torch._foreach_lerp_(list(average.parameters()), list(net.parameters()), 1 - decay)


def train_vae(args: argparse.Namespace, windows: Windows, device: torch.device) -> None:
    """L1 pyramid + KL + patch discriminator, as ``VaeTraining``; level-true crops of 2.56 s."""
    channels = [int(v) for v in args.widths.split(",")]
    settings: dict[str, Any] = {
        "channels": channels, "latent_channels": args.channels, "layers": args.layers, "groups": args.groups
    }  # fmt: skip
    vae, average = build_vae(**settings).to(device), build_vae(**settings).to(device)
    if args.resume:
        vae.load_state_dict({k: v.float() for k, v in load_component(args.resume).state_dict().items()})
    average.load_state_dict(vae.state_dict())
    print(f"{sum(p.numel() for p in vae.parameters()) / 1e6:.2f} M parameters", flush=True)
    net = PatchDiscriminator(width=args.width_discriminator).to(device)
    mel_of = LogMel(AudioSpec()).to(device)
    first, second = (adamw(n.parameters(), args.lr, device, (0.5, 0.9), 0.0) for n in (vae, net))
    samples = 256 * HOP
    stride = 2 ** (len(channels) - 1)

    def step(dummy: Tensor, adversarial: bool) -> dict[str, Tensor]:
        with torch.no_grad():
            wave, _, _ = windows.draw(args.rows, samples)
            mel = mel_of(gained(wave, quiet=0.3)[:, None])
        with half(device):
            posterior = vae.encode(mel).latent_dist
            mean, std = posterior.mean.float(), posterior.std.float()
            decoded_mel = vae.decode(mean + std * torch.randn_like(mean)).sample.float()
        terms = {"l1": mel_pyramid(decoded_mel, mel), "kl": kl_to_standard_normal(mean, std).mean()}
        loss = terms["l1"] + args.kl * terms["kl"]
        if adversarial:
            with half(device):
                score = hinge_discriminator(net(mel), net(decoded_mel.detach()))
            terms["norm_d"] = descend(score.float(), second, 1.0)
            net.requires_grad_(False)
            with half(device):
                terms["generator"] = hinge_generator(net(decoded_mel)).float()
            net.requires_grad_(True)
            terms["discriminator"] = score
            loss = loss + 0.1 * terms["generator"]
        terms["norm"] = descend(loss, first, 1.0)
        follow(average, vae, 0.999)
        return {k: v.detach() for k, v in terms.items()}

    run, clock, lines, count = (
        recorded(step, device, args),
        Clock(args.out, args.minutes, args.steps),
        Lines(),
        0,
    )
    dummy = torch.zeros(1, device=device)
    while (progress := clock.progress(count)) < 1:
        for optimizer in (first, second):
            set_rate(optimizer, args.lr * rate(progress, count))
        lines.add(count, run(dummy, adversarial=count >= args.adversarial))
        count += 1
    average.eval()
    with torch.no_grad():
        total, latents = 0.0, []
        valid = read_valid(args.parts / "valid", args.limit)
        for at in range(0, len(valid), 32):
            mel = mel_of(torch.stack([wave for wave, _ in valid[at : at + 32]])[:, None].to(device))
            posterior = average.encode(mel).latent_dist
            total += float((average.decode(posterior.mean).sample - mel).abs().mean((1, 2, 3)).sum())
            latents.append((posterior.mean + posterior.std * torch.randn_like(posterior.mean)).cpu())
        scale = 1 / float(torch.cat(latents).std())
    average.register_to_config(scaling_factor=scale)
    average.half().save_pretrained(args.out / "vae")
    result = {"steps": count, "valid_l1": total / len(valid), "scale": scale, "stride": stride}
    (args.out / "vae.json").write_text(json.dumps(result))
    print(result, flush=True)


class Texts:
    """All texts as tokens (T, L) on the card, and MiniLM's vectors of them (T, 384)."""

    def __init__(self, texts: list[str], tokenizer: Any, minilm: Path | None, device: torch.device) -> None:
        tokens = tokenizer(texts, padding="max_length", truncation=True, max_length=32, return_tensors="pt")
        self.ids, self.mask = tokens.input_ids.to(device), tokens.attention_mask.to(device)
        self.vectors = self.teach(texts, minilm, device) if minilm else None

    @staticmethod
    @torch.no_grad()
    def teach(texts: list[str], folder: Path, device: torch.device) -> Tensor:
        """MiniLM's sentence vectors."""
        from transformers import AutoModel, AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(folder)
        model = AutoModel.from_pretrained(
            folder, dtype=torch.float16 if device.type == "cuda" else torch.float32
        )
        model = model.to(device).eval()
        out = []
        for at in range(0, len(texts), 1024):
            part = tokenizer(
                texts[at : at + 1024], padding=True, truncation=True, max_length=48, return_tensors="pt"
            ).to(device)
            hidden = model(**part).last_hidden_state.float()
            mask = part.attention_mask[..., None].float()
            out.append(nnf.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1))
        return torch.cat(out)

    def embed(self, clap: TwoTowers, index: Tensor) -> Tensor:
        """CLAP's unit vectors of texts (B,)."""
        mask = self.mask[index]
        embeds = clap.text_encoder(self.ids[index], attention_mask=mask).text_embeds
        return nnf.normalize(embeds.float(), dim=-1)


def train_clap(args: argparse.Namespace, windows: Windows, device: torch.device) -> None:
    """InfoNCE with MiniLM and YAMNet as teachers; the average of the weights is kept."""
    from audioldm.nets.minilm import minilm_tokenizer, minilm_word_embeddings

    tokenizer = minilm_tokenizer(args.minilm)
    clap = build_small_clap(
        tokenizer,
        width=args.text_width,
        layers=args.text_layers,
        word_embeddings=minilm_word_embeddings(args.text_width, args.minilm),
    ).to(device)
    for module in clap.text_encoder.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.1
    words = (args.parts / "words.txt").read_text().splitlines()
    valid = read_valid(args.parts / "valid", args.limit)
    own = len(windows.texts)
    texts = Texts(
        [*windows.texts, *words, *(row["texts"][0] for _, row in valid)], tokenizer, args.minilm, device
    )
    print(
        f"{own} texts of sounds, {len(words)} others, {sum(p.numel() for p in clap.parameters()) / 1e6:.2f} M",
        flush=True,
    )
    tagger = Tagger(args.yamnet, device)
    maps = nn.ModuleDict({"text": nn.Linear(clap.dim, 384), "audio": nn.Linear(clap.dim, 1024)}).to(device)
    scale = nn.Parameter(torch.tensor(2.66, device=device))
    optimizer = adamw([*clap.parameters(), *maps.parameters(), scale], args.lr, device, (0.9, 0.98), 0.05)
    valid_waves = torch.stack([wave for wave, _ in valid]).to(device)
    valid_texts = torch.arange(len(valid), device=device) + own + len(words)
    distinct = sorted({row["texts"][0] for _, row in valid})
    place = [distinct.index(row["texts"][0]) for _, row in valid]
    names = valid_texts[[place.index(i) for i in range(len(distinct))]]

    def cosine(student: Tensor, target: Tensor) -> Tensor:
        return (1 - nnf.cosine_similarity(student, target, dim=-1)).mean()

    def step() -> dict[str, Tensor]:
        with torch.no_grad():
            wave, text, kinds = windows.draw(args.rows, WINDOW)
            target = tagger(wave)[0].mean(1)
            extra = own + (torch.rand(args.rows, device=device) * len(words)).long()
            noisy = wave + torch.randn_like(wave) * 10 ** (-2 - 2 * torch.rand(args.rows, 1, device=device))
        with half(device):
            audio = nnf.normalize(clap.audio_encoder(noisy[:, None]).float(), dim=-1)
            rows = texts.embed(clap, torch.cat([text, extra]))
        own_rows = rows[: args.rows]
        same = (text[:, None] == text[None]) | ((kinds[:, None] == kinds[None]) & (kinds[:, None] >= 0))
        terms = {"contrast": info_nce(own_rows, audio, scale.exp().clamp(max=60), same=same)}
        terms["text"] = cosine(maps["text"](rows), texts.vectors[torch.cat([text, extra])])
        terms["audio"] = cosine(maps["audio"](audio), target)
        loss = terms["contrast"] + 2.0 * terms["text"] + terms["audio"]
        terms["norm"] = descend(loss, optimizer, 1.0)
        return terms

    @torch.no_grad()
    def check() -> dict[str, float]:
        clap.eval()
        audio = torch.cat(
            [nnf.normalize(clap.audio_encoder(w[:, None]).float(), dim=-1) for w in valid_waves.split(64)]
        )
        near = audio @ texts.embed(clap, names).T
        target = torch.tensor(place, device=device)
        rank = (near > near.gather(1, target[:, None])).sum(1)
        loss = nnf.cross_entropy(near * scale.exp().clamp(max=60), target)
        clap.train()
        return {
            "loss": float(loss),
            "top1": float((rank < 1).float().mean()),
            "top10": float((rank < 10).float().mean()),
        }

    clock, lines, count, checked = (
        Clock(args.out, args.minutes, args.steps),
        Lines(),
        0,
        time.time(),
    )
    average = build_small_clap(tokenizer, width=args.text_width, layers=args.text_layers).to(device)
    average.load_state_dict(clap.state_dict())
    while (progress := clock.progress(count)) < 1:
        set_rate(optimizer, args.lr * rate(progress, count))
        lines.add(count, step())
        follow(average, clap, min(0.998, (count + 1) / (count + 20)))
        count += 1
        if time.time() - checked > 25:
            checked = time.time()
            print(count, {k: round(v, 4) for k, v in check().items()}, flush=True)
    clap.load_state_dict(average.state_dict())
    result = check()
    for module in clap.text_encoder.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    clap.save(args.out / "clap", dtype=torch.float16)
    print(count, "average", result, flush=True)
    (args.out / "clap.json").write_text(json.dumps({"steps": count, **result}))


class Judge:
    """Generates from captions and prompts on the card, and asks YAMNet what it is."""

    def __init__(self, args: argparse.Namespace, vae: Any, device: torch.device) -> None:
        self.vae, self.device, self.schedule = vae, device, audioldm_zero_snr().to(device)
        self.vocoder = load_component(args.vocoder).to(device).float().eval()
        self.tagger, names = Tagger(args.yamnet, device), class_names(args.yamnet.parent)
        self.silence = names.index("Silence")
        lines = [line.split("\t") for line in args.prompts.read_text().splitlines() if line.strip()]
        self.prompts = [line[0] for line in lines]
        self.right = [
            [i for i, name in enumerate(names) if any(name.startswith(part) for part in line[1].split("|"))]
            for line in lines
        ]

    @torch.no_grad()
    def sound(
        self, net: Any, film: Tensor, empty: Tensor, *, guidance: float, steps: int, seed: int
    ) -> Tensor:
        """(B, N) by DDIM from v-predictions, trailing times.   Song 2021 eq. 12."""
        call = net_call(net)
        shape = (len(film), self.vae.config.latent_channels, FRAMES // self.stride, 64 // self.stride)
        x = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(self.device)
        condition = Condition(film=torch.cat([film, empty.expand_as(film)]))
        times = torch.linspace(999, 0, steps + 1, device=self.device).round().long()[:-1]
        for number, t in enumerate(times):
            with half(self.device):
                both = call(torch.cat([x, x]), t.expand(2 * len(x)), condition).float()
            with_words, without = both.chunk(2)
            v = without + guidance * (with_words - without)
            alpha, sigma = (c.float() for c in self.schedule.coefficients(t))
            clean, eps = alpha * x - sigma * v, sigma * x + alpha * v
            if number + 1 == len(times):
                x = clean
                break
            alpha, sigma = (c.float() for c in self.schedule.coefficients(times[number + 1]))
            x = alpha * clean + sigma * eps
        mel = self.vae.decode(x / self.vae.config.scaling_factor).sample.float()
        return vocode(self.vocoder, mel)[:, 0, :WINDOW]

    @property
    def stride(self) -> int:
        """Mel frames of one latent frame."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    @torch.no_grad()
    def tags(self, wave: Tensor) -> tuple[Tensor, Tensor]:
        """YAMNet's embeddings (B P, 1024) and scores (B, P, 521)."""
        embeddings, logits = self.tagger(wave)
        return embeddings.flatten(0, 1), logits.sigmoid()

    def hits(self, scores: Tensor, kinds: list[list[int]], pooled: str) -> list[bool]:
        """Whether a fitting class is among the five highest with at least 0.2."""
        values = scores.amax(1) if pooled == "max" else scores.mean(1)
        values[:, self.silence] = 0
        top = values.topk(5)
        return [
            any(i in kind and p >= 0.2 for p, i in zip(ps, index, strict=True))
            for ps, index, kind in zip(top.values.tolist(), top.indices.tolist(), kinds, strict=True)
        ]

    def judge(
        self,
        net: Any,
        embed: Callable[[list[str]], Tensor],
        valid: list[tuple[Tensor, dict[str, Any]]],
        seeds: int,
        embed_audio: Callable[[Tensor], Tensor],
    ) -> dict[str, Any]:
        """Share of prompts recognised (mean and maximum over patches), also of the one in four that CLAP finds
        nearest to its prompt, and FD to the held-out sounds.
        """
        out: dict[str, Any] = {}
        empty = embed([""])
        real = torch.stack([wave for wave, _ in valid]).to(self.device)
        real_embeddings = torch.cat([self.tags(part)[0] for part in real.split(64)]).double().cpu()
        film = torch.cat(
            [embed([row["texts"][0] for _, row in valid[at : at + 64]]) for at in range(0, len(valid), 64)]
        )
        prompts = embed(self.prompts)
        for guidance in (2.5, 4.0, 6.0):
            waves = [
                self.sound(net, part, empty, guidance=guidance, steps=20, seed=9000 + i)
                for i, part in enumerate(film.split(64))
            ]
            embeddings = torch.cat([self.tags(wave)[0] for wave in waves]).double().cpu()
            out[f"fd_{guidance}"] = float(frechet_rows(embeddings, real_embeddings))
            silent = torch.cat([wave.abs().amax(1) < 0.02 for wave in waves])
            out[f"silent_{guidance}"] = float(silent.float().mean())
            right: dict[str, list[list[bool]]] = {"mean": [], "max": []}
            near, best = [], {"mean": list[bool](), "max": list[bool]()}
            for seed in range(seeds):
                wave = torch.cat(
                    [
                        self.sound(net, p, empty, guidance=guidance, steps=20, seed=100 * seed + i)
                        for i, p in enumerate(prompts.split(64))
                    ]
                )
                scores = self.tags(wave)[1]
                near.append((embed_audio(wave) * prompts).sum(1).cpu())
                for pooled in right:
                    right[pooled].append(self.hits(scores, self.right, pooled))
            for first in range(0, seeds - 3, 4):
                choice = torch.stack(near[first : first + 4]).argmax(0).tolist()
                for pooled, rows in right.items():
                    best[pooled] += [rows[first + k][i] for i, k in enumerate(choice)]
            for pooled, rows in right.items():
                out[f"prompts_{pooled}_{guidance}"] = sum(map(sum, rows)) / sum(map(len, rows))
                out[f"best_of_4_{pooled}_{guidance}"] = sum(best[pooled]) / max(1, len(best[pooled]))
            out[f"by_prompt_{guidance}"] = {
                prompt: sum(row[i] for row in right["max"]) for i, prompt in enumerate(self.prompts)
            }
        return out


class Bank:
    """Windows as latents on the card, used several times each; every draw puts new ones in place of the oldest."""

    def __init__(
        self, fresh: Callable[[int], tuple[Tensor, ...]], size: int, new: int, device: torch.device
    ) -> None:
        self.fresh, self.size, self.new = fresh, size // FILL * FILL, new
        with torch.no_grad():
            parts = [fresh(FILL) for _ in range(self.size // FILL)]
        columns = [torch.cat(column) for column in zip(*parts, strict=True)]
        self.columns = [c.half() if c.is_floating_point() else c for c in columns]
        self.place = torch.arange(new, device=device)

    @torch.no_grad()
    def refresh(self) -> None:
        """Draw new windows into the place of the oldest."""
        for column, part in zip(self.columns, self.fresh(self.new), strict=True):
            column.index_copy_(0, self.place, part.to(column.dtype))
        self.place.add_(self.new).remainder_(self.size)

    @torch.no_grad()
    def draw(self, rows: int) -> list[Tensor]:
        """Columns of B windows, after a refresh."""
        self.refresh()
        index = (torch.rand(rows, device=self.place.device) * self.size).long()
        return [c[index].float() if c.is_floating_point() else c[index] for c in self.columns]


def train_unet(args: argparse.Namespace, windows: Windows, device: torch.device) -> None:
    """v-prediction, min-SNR, zero terminal SNR, FiLM on text (mostly) or sound; latents as they are drawn."""
    for path in args.wait:
        while not path.exists():
            time.sleep(0.5)
    vae = load_component(args.vae).to(device).float().eval().requires_grad_(False)
    clap = load_clap(args.clap).to(device).eval().requires_grad_(False)
    texts = Texts(windows.texts, clap.tokenizer, None, device)
    with torch.no_grad():
        table = torch.cat(
            [texts.embed(clap, part) for part in torch.arange(len(windows.texts), device=device).split(512)]
        )

    @torch.no_grad()
    def embed(prompts: list[str]) -> Tensor:
        return clap.embed_text(prompts)

    empty = embed([""])
    stride = 2 ** (len(vae.config.block_out_channels) - 1)
    widths = [int(v) for v in args.widths.split(",")]
    settings: dict[str, Any] = {
        "channels": widths, "latent_channels": vae.config.latent_channels, "layers": args.layers, "film_dim": clap.dim,
        "groups": 16, "sample_size": FRAMES // stride,
    }  # fmt: skip
    net, average = build_unet("film", **settings).to(device), build_unet("film", **settings).to(device).eval()
    if args.resume:
        net.load_state_dict({k: v.float() for k, v in load_component(args.resume).state_dict().items()})
    average.load_state_dict(net.state_dict())
    for module in net.modules():
        if isinstance(module, nn.Dropout):
            module.p = args.dropout
    print(f"{sum(p.numel() for p in net.parameters()) / 1e6:.2f} M parameters", flush=True)
    schedule = audioldm_zero_snr().to(device)
    mel_of, factor, call = LogMel(AudioSpec()).to(device), vae.config.scaling_factor, net_call(net)
    optimizer = adamw(net.parameters(), args.lr, device, (0.9, 0.99), 0.01)
    rows = args.rows
    even = torch.arange(rows, device=device, dtype=torch.float64) / rows

    def fresh(count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Latents, sound's vectors, texts and kinds of windows that were drawn now."""
        wave, text, kinds = windows.draw(count, WINDOW)
        with half(device):
            posterior = vae.encode(mel_of(wave[:, None])).latent_dist
            audio = nnf.normalize(clap.audio_encoder(wave[:, None]).float(), dim=-1)
        mean = posterior.mean.float()
        return (mean + posterior.std.float() * torch.randn_like(mean)) * factor, audio, text, kinds

    bank = Bank(fresh, args.bank, args.fresh, device)

    def step(dummy: Tensor) -> dict[str, Tensor]:
        with torch.no_grad():
            z, audio, text, kinds = bank.draw(rows)
            near = table[text]
            near = nnf.normalize(
                near + torch.randn_like(near) * (args.blur * torch.rand(rows, 1, device=device) / 16), dim=-1
            )
            use_text = (torch.rand(rows, 1, device=device) < args.text_prob) | (kinds[:, None] < 0)
            film = torch.where(use_text, near, audio)
            film = torch.where(torch.rand(rows, 1, device=device) < args.drop, empty, film)
            u = (even + torch.rand(1, device=device, dtype=torch.float64)) % 1
            t = (u * schedule.length).long().clamp(max=schedule.length - 1)
            noise = torch.randn_like(z)
        with half(device):
            losses = objective.loss(
                lambda x, times: call(x, times, Condition(film=film)).float(),
                z,
                t,
                noise,
                schedule,
                "v",
                "min_snr",
            )
        loss = losses.float().mean()
        norm = descend(loss, optimizer, 1.0)
        follow(average, net, args.decay)
        return {"loss": loss.detach(), "norm": norm}

    valid = read_valid(args.parts / "valid", args.limit)
    judge = Judge(args, vae, device)
    run, clock, lines, count = (
        recorded(step, device, args),
        Clock(args.out, args.minutes, args.steps),
        Lines(),
        0,
    )
    dummy, checked = torch.zeros(1, device=device), time.time()
    net.train()

    averaged = net_call(average)

    def report() -> dict[str, Any]:
        generator = torch.Generator(device).manual_seed(0)
        total = []
        with torch.no_grad(), half(device):
            for at in range(0, len(valid), 64):
                part = valid[at : at + 64]
                mel = mel_of(torch.stack([wave for wave, _ in part])[:, None].to(device))
                z = vae.encode(mel).latent_dist.mean.float() * factor
                film = embed([row["texts"][0] for _, row in part])
                t = objective.draw_t(
                    len(z), schedule, generator=torch.Generator().manual_seed(at), kind="low_discrepancy"
                ).to(device)
                noise = torch.randn(z.shape, generator=generator, device=device)
                total.append(
                    objective.loss(
                        lambda x, times, f=film: averaged(x, times, Condition(film=f)).float(),
                        z,
                        t,
                        noise,
                        schedule,
                        "v",
                        "min_snr",
                    )
                )
        return {
            "steps": count,
            "valid": float(torch.cat(total).mean()),
            **judge.judge(average, embed, valid, args.seeds, partial(embed_audio, clap)),
        }

    while (progress := clock.progress(count)) < 1:
        set_rate(optimizer, args.lr * rate(progress, count))
        lines.add(count, run(dummy))
        count += 1
        if time.time() - checked > args.every:
            checked = time.time()
            now = report()
            print(
                {k: v for k, v in now.items() if not k.startswith("by")},
                f"{time.time() - checked:.0f} s",
                flush=True,
            )
            save_unet(average, args.out / "ema")
            checked = time.time()
    final = report()
    print({k: v for k, v in final.items() if not k.startswith("by")}, flush=True)
    (args.out / "unet.json").write_text(json.dumps(final))
    save_unet(average, args.out / "final")
    print("end", count, flush=True)


@torch.no_grad()
def embed_audio(clap: TwoTowers, wave: Tensor) -> Tensor:
    """CLAP's unit vectors of waves (B, N)."""
    return nnf.normalize(clap.audio_encoder(wave[:, None]).float(), dim=-1)


def judge_only(args: argparse.Namespace, device: torch.device) -> None:
    """Judge a trained model on ``--prompts`` and the held-out sounds."""
    vae = load_component(args.vae).to(device).float().eval()
    clap = load_clap(args.clap).to(device).eval()
    net: Any = load_component(args.resume).to(device).float().eval()
    with torch.no_grad():
        result = Judge(args, vae, device).judge(
            net,
            clap.embed_text,
            read_valid(args.parts / "valid", args.limit),
            args.seeds,
            partial(embed_audio, clap),
        )
    print({k: v for k, v in result.items() if not k.startswith("by")}, flush=True)
    (args.out / "judged.json").write_text(json.dumps(result))


def save_unet(net: Any, folder: Path, piece: int = 14 * 2**20) -> None:
    """The weights in float16, in pieces that travel, and the settings."""
    draft = folder.with_name(folder.name + ".new")
    draft.mkdir(parents=True, exist_ok=True)
    net.save_config(draft)
    parts: list[dict[str, Tensor]] = [{}]
    size = 0
    for key, value in net.state_dict().items():
        value = value.detach().half().cpu().contiguous()
        if size + value.nbytes > piece:
            parts.append({})
            size = 0
        parts[-1][key] = value
        size += value.nbytes
    for number, part in enumerate(parts):
        save_file(part, draft / f"{number}.safetensors")
    folder.mkdir(exist_ok=True)
    for path in draft.iterdir():
        path.replace(folder / path.name)


def load_clap(folder: Path) -> TwoTowers:
    """The small CLAP of a folder."""
    from transformers import ClapTextModelWithProjection, PreTrainedTokenizerFast

    text = ClapTextModelWithProjection.from_pretrained(folder / "text_encoder", dtype=torch.float32)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder / "tokenizer")
    audio: Any = load_component(folder / "audio_encoder").float()
    return TwoTowers(text, tokenizer, audio)


def main() -> None:
    """Read the command line and train until the clock says so."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("vae", "clap", "unet", "judge"))
    for name in ("parts", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    for name in ("vae", "clap", "vocoder", "yamnet", "minilm", "prompts", "resume"):
        parser.add_argument(f"--{name}", type=Path)
    parser.add_argument(
        "--wait", type=Path, nargs="*", default=[], help="files that must be there before the U-Net"
    )
    parser.add_argument("--need", type=int, default=1, help="parts to wait for")
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--steps", type=int, help="so many steps instead")
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--lr", type=float, default=5e-4)
    parser.add_argument("--widths", default="32,64,96,128")
    parser.add_argument("--layers", type=int, default=1)
    parser.add_argument("--groups", type=int, default=16)
    parser.add_argument("--channels", type=int, default=16, help="of the latent")
    parser.add_argument("--kl", type=float, default=0.005)
    parser.add_argument("--adversarial", type=int, default=1500)
    parser.add_argument("--width-discriminator", type=int, default=32)
    parser.add_argument("--text-width", type=int, default=192)
    parser.add_argument("--text-layers", type=int, default=3)
    parser.add_argument("--text-prob", type=float, default=0.75)
    parser.add_argument(
        "--blur", type=float, default=0.5, help="largest noise on a text's vector, as a share of its length"
    )
    parser.add_argument("--drop", type=float, default=0.1)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--decay", type=float, default=0.999)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--bank", type=int, default=65536, help="windows kept as latents on the card")
    parser.add_argument("--fresh", type=int, default=16, help="of them, drawn anew before each step")
    parser.add_argument("--every", type=float, default=400.0, help="seconds between judgements")
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=int, help="clips: a rehearsal")
    parser.add_argument("--eager", action="store_true")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    start = time.time()
    if args.what == "judge":
        judge_only(args, device)
        return
    clips = read_parts(args.parts, args.need, args.workers)[: args.limit]
    torch.manual_seed(args.seed)
    windows = Windows(clips, device)
    hours = sum(len(wave) for wave, _ in clips) / RATE / 3600
    print(
        f"{time.time() - start:.1f} s: {len(clips)} clips, {hours:.2f} h, {len(windows.texts)} texts",
        flush=True,
    )
    {"vae": train_vae, "clap": train_clap, "unet": train_unet}[args.what](args, windows, device)
    (args.out / "finished").touch()


if __name__ == "__main__":
    main()
