"""Distils the embedded model into students of 4, 2 and 1 calls on a rented GPU against the clock.

    python -m recipes.embedded.student_lease --prompts data/student_prompts.txt --out DIR --minutes 9

``distill/warmup`` by the clock: each student begins at the one before it, and its learning rate follows the time.
Of the time a share draws new trajectories of the teacher, of which the oldest make way.   Writes turbo.safetensors,
turbo2 and turbo1, each as soon as it is there, and log.jsonl: the error at the end of each segment of held-out
trajectories, at variance 1, from the teacher's states (``forced``) and from the student's own (``own``), and how much
the student's ends have of the teacher's variance and of its detail from frame to frame.
"""

import argparse
import json
import math
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from audioldm.adapters.adapter import CONVOLUTIONS, LINEAR, Adapter, learned
from audioldm.adapters.files import write
from audioldm.datasets.draws import BEGIN, Place, generator
from audioldm.diffusion import distill
from audioldm.training.data import DataModule
from audioldm.training.distill import Bank, Points, Segments, Trajectories
from audioldm.training.sounds import from_prompts
from audioldm.training.speed import RecordedStep, lay_channels_last
from recipes.embedded.model_lease import adamw, descend, half, set_rate

NAMES = {4: "turbo", 2: "turbo2", 1: "turbo1"}
SEGMENTS = {4: (5, 5, 1, 1), 2: (3, 1), 1: (1,)}
"""how often each segment is learned from: an error after the first of four is 200 times as large at the end, after the
second 16 times, after the third 3 times"""
SHARES = {4: 0.42, 2: 0.46, 1: 0.12}
"""of the time"""
TARGETS = (*LINEAR, *CONVOLUTIONS, "conv_in", "conv_out", "linear_1", "linear_2")
"""every layer of the U-Net"""
WARMUP, TURN, LOOK, FAR = 100, 8, 20.0, 10**6
"""steps of growing learning rate; steps between two looks at the clock; seconds between two lines of the log; a batch
that no training reaches"""


class Student:
    """A ``Segments`` module with a loop of its own, whose rate falls to 0: no average of the weights is needed."""

    def __init__(self, calls: int, options: argparse.Namespace, begin: Path | None, data: DataModule) -> None:
        self.calls, self.options, self.data, self.begin = calls, options, data, time.time()
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.on_gpu = self.device.type == "cuda"
        settings: dict[str, Any] = {"model": None, "prompt": None, "batches": 1, "text_prob": 1.0}
        known = Trajectories(
            kept=options.kept, states=options.states, guidance=options.guidance, between=options.between,
            shares=SEGMENTS[calls],
        )  # fmt: skip
        self.module = Segments(
            rank=options.rank, targets=TARGETS, trajectories=known, sampling={"steps": calls},
            adapter=None if begin is None else str(begin), **settings,
        )  # fmt: skip
        self.module.to(self.device)
        self.module.schedule = self.module.schedule.to(self.device)
        if self.on_gpu:
            self.module.teacher.to(self.device, mode="fast", dtype=torch.float16)
            lay_channels_last(self.module.unet)
        self.params = [p for p in self.module.unet.parameters() if p.requires_grad]
        self.optimizer = adamw(self.params, options.lr, self.device, (0.9, 0.99), 0.0)
        self.recorded = RecordedStep(self.learn)
        self.rng = generator(options.seed, calls, 0, device=self.device)
        self.batches: Iterator[Any] = iter(data.loader(BEGIN))
        self.count, self.drawing = 0, 0.0
        self.held = self.held_out()
        self.bank = self.module.empty_bank(options.kept)

    def held_out(self) -> Bank:
        """Trajectories of a batch of prompts from noise that training does not meet."""
        batch = next(iter(self.data.loader(Place(FAR)))).to(self.device)
        held = self.module.empty_bank(len(batch.mean))
        rng = generator(self.options.seed, -1, self.calls, device=self.device)
        held.add(*self.module.drawn(batch, rng))
        return held

    def refill(self) -> None:
        """New trajectories of one batch of prompts."""
        start = time.time()
        self.bank.add(*self.module.drawn(next(self.batches).to(self.device), self.rng))
        self.wait()
        self.drawing += time.time() - start

    def wait(self) -> None:
        if self.on_gpu:
            torch.cuda.synchronize()

    def learn(self, *inputs: Any) -> dict[str, Tensor]:
        """One step, as a CUDA graph can record it."""
        with half(self.device):
            loss = self.module.loss(Points(*inputs)).mean()
        norm = descend(loss, self.optimizer, 1.0)
        return {"loss": loss.detach(), "norm": norm}

    @torch.no_grad()
    def check(self) -> dict[str, Any]:
        """What the log says."""
        held, steps = self.held, len(self.held.ends)
        out: dict[str, Any] = {"forced": [], "own": []}
        rows = torch.arange(held.size, device=self.device)
        own, sigma = held.state(rows, torch.zeros_like(rows))
        for k in range(steps):
            x, sigma = held.state(rows, torch.full_like(rows, k))
            goal, end = held.state(rows, torch.full_like(rows, k + 1))
            landed = []
            for start in (x, own):
                parts = []
                for part in rows.split(64):
                    with half(self.device):
                        net = self.module.denoiser(self.module.unet, held.condition.rows(part))
                        parts.append(distill.step_to(end[part], net, start[part], sigma[part]))
                landed.append(torch.cat(parts))
            own, scale = landed[1], float((1 + end[0] ** 2).rsqrt())
            for name, there in zip(("forced", "own"), landed, strict=True):
                out[name].append(round(float((there - goal).square().mean()) * scale**2, 6))
        out["variance"] = round(float(own.var() / goal.var()), 4)
        out["detail"] = round(float(own.diff(dim=2).square().mean() / goal.diff(dim=2).square().mean()), 4)
        return out

    def train(self, end: float, log: Path) -> None:
        """Until the time ``end``."""
        start = looked = time.time()
        first = self.options.kept // 4
        while self.bank.count < first and (not self.bank.count or time.time() < start + 0.2 * (end - start)):
            self.refill()
        terms: dict[str, Tensor] = {}
        while (now := time.time()) < end:
            if self.drawing < self.options.share * (now - start):
                self.refill()
            progress = min(1.0, (now - start) / (end - start))
            for _ in range(TURN):
                warm = min(1.0, (self.count + 1) / WARMUP)
                set_rate(self.optimizer, self.options.lr * warm * 0.5 * (1 + math.cos(math.pi * progress)))
                terms = self.recorded(*self.bank.draw(self.options.states, self.rng))
                self.count += 1
            self.wait()
            if time.time() - looked > LOOK:
                looked = time.time()
                self.say(log, **{name: float(value) for name, value in terms.items()})
        self.say(log, event="end")

    def say(self, log: Path, **more: Any) -> None:
        about = {"calls": self.calls, "seconds": round(time.time() - self.begin, 1), "steps": self.count}
        line = json.dumps(
            about | {"drawn": self.bank.count, "drawing": round(self.drawing, 1)} | self.check() | more
        )
        print(line, flush=True)
        with log.open("a") as file:
            file.write(line + "\n")

    def save(self, path: Path) -> None:
        """The LoRA in half precision."""
        assert self.module.adapter is not None
        adapter: Adapter = learned(self.module.unet, self.module.adapter)
        layers = {
            name: replace(layer, factors={k: v.half() for k, v in layer.factors.items()})
            for name, layer in adapter.layers.items()
        }
        about = self.module.about() | {"batches": str(self.count)}
        write(path, replace(adapter, layers=layers, base=self.module.base("unet"), about=about))


def main() -> None:
    """Train the students one after the other."""
    line = argparse.ArgumentParser(description="Students of 4, 2 and 1 calls of the embedded model.")
    line.add_argument("--prompts", type=Path, required=True)
    line.add_argument("--out", type=Path, required=True)
    line.add_argument("--minutes", type=float, default=9.0)
    line.add_argument("--calls", type=int, nargs="+", default=[4, 2, 1])
    line.add_argument("--begin", type=Path, help="a student to train further")
    line.add_argument("--guidance", type=float, default=2.5, help="of the teacher")
    line.add_argument("--between", type=float, default=0.3, help="share of prompts between two of the list")
    line.add_argument("--rank", type=int, default=64)
    line.add_argument("--lr", type=float, default=1e-3)
    line.add_argument("--states", type=int, default=256, help="learned from at a step")
    line.add_argument("--rows", type=int, default=256, help="trajectories drawn at once")
    line.add_argument("--kept", type=int, default=65536)
    line.add_argument("--share", type=float, default=0.35, help="of the time that draws trajectories")
    line.add_argument("--seed", type=int, default=0)
    options = line.parse_args()
    start = time.time()
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = True
    options.out.mkdir(parents=True, exist_ok=True)
    about: dict[str, Any] = {"file": str(options.prompts), "accelerator": "gpu", "batch_size": options.rows}
    data = from_prompts(seed=options.seed, **about)
    begin, last = options.begin, start + 60 * options.minutes
    for i, calls in enumerate(options.calls):
        rest = sum(SHARES[each] for each in options.calls[i:])
        student = Student(calls, options, begin, data)
        now = time.time()
        student.train(now + (last - now) * SHARES[calls] / rest, options.out / "log.jsonl")
        begin = options.out / f"{NAMES[calls]}.safetensors"
        student.save(begin)


if __name__ == "__main__":
    main()
