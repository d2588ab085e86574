"""``audioldm bench``: how fast a model generates here, where the time goes, and how near the machine's best that is."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from typing import Any

from audioldm.cli.console import progress, waiting, would
from audioldm.cli.options import AsJson, Between, Command, DryRun, argument, changed, option
from audioldm.cli.options.groups import ModelOptions, Sampling
from audioldm.cli.startup import later, loading

with later():
    import torch

    from audioldm.pipeline import audioldm, timing


class Bench(DryRun, AsJson, Command):
    """Time a model on this machine, part by part.

    Median of the runs; gflop counts a multiply-add as two; "of peak" compares with a large matrix product in the same
    number type here, so 100 % is a floor that nothing with these layers goes below.

    Examples:
      audioldm bench
      audioldm bench --mode fast
      audioldm bench --dry-run --set dtype=bfloat16
      audioldm bench -m out/model --seconds 10 --steps 25 --device cuda --mode fast --json
    """

    prompt: str = argument("a dog barking", "What to generate meanwhile.")
    batch_size: int = option(1, "Clips made at once.", Between(1, 4096))
    repeat: int = option(3, "Timed runs, after one that warms up.", Between(1, 10_000))
    sampling: Sampling = Sampling()
    model: ModelOptions = ModelOptions()

    def run(self) -> None:
        with waiting("loading torch and the model"), loading():
            self.sampling.check(self.model.device)
            if self.dry_run:
                settings = changed(self.sampling, self.model) or "the model's own settings"
                what = f"{self.batch_size} clips of {self.prompt!r}, {self.repeat} times after a warm-up"
                would(f"{what}; {settings}")
                return
            pipe = self.model.load()
        with progress(self.repeat + 1, "runs") as step:
            result = self.measure(pipe, step)
        self.show(result, table(result))

    def measure(self, pipe: audioldm.AudioLDM, step: Callable[[], None]) -> dict[str, Any]:
        settings, size = self.sampling.named(), self.batch_size
        whole = pipe.defaults.merged(**settings)

        def run() -> None:
            pipe([self.prompt] * size, seeds=range(size), batch_size=size, **settings)
            step()

        # warms up; recorded graphs hide their operations
        counted = timing.trace(pipe, run, count=pipe.mode == "exact")
        runs = [timing.trace(pipe, run) for _ in range(self.repeat)]
        peak, parts = timing.matmul_rate(pipe.device, pipe.dtype), dict[str, Any]()
        for part in timing.PARTS:
            flops, times = counted[part].flops, [usage[part].seconds for usage in runs]
            parts[part] = {
                "s": median(times), "least_s": min(times), "most_s": max(times),
                "calls": runs[-1][part].calls, "gflop": flops / 1e9,
                "of_peak": flops / median(times) / peak if flops else None,
            }  # fmt: skip
        took = median(usage["all"].seconds for usage in runs)
        return {
            "model": pipe.name, "mode": pipe.mode, "dtype": str(pipe.dtype).removeprefix("torch."),
            "device": torch.cuda.get_device_name(pipe.device) if pipe.device.type == "cuda" else "cpu",
            "threads": torch.get_num_threads(), "clips": size, "seconds": whole.seconds, "steps": whole.steps,
            "s": took, "real_time_factor": took / (whole.seconds * size), "clips_per_minute": 60 * size / took,
            "peak_mib": timing.peak_mib(pipe.device), "peak_gflop_per_s": peak / 1e9, "parts": parts,
        }  # fmt: skip


def table(result: dict[str, Any]) -> str:
    lines = [
        "{model}, {mode} ({dtype}) on {device}, {threads} threads: {clips} x {seconds:g} s, {steps} steps",
        "{s:.3f} s, {real_time_factor:.3f} of real time, {clips_per_minute:.1f} clips/min, "
        "peak memory {peak_mib:.0f} MiB, matrix peak {peak_gflop_per_s:.0f} GFLOP/s",
        f"{'part':<9}{'calls':>6}{'s':>9}{'share':>8}{'least..most':>18}{'gflop':>10}{'of peak':>9}",
    ]
    lines = [line.format(**result) for line in lines]
    for part, row in result["parts"].items():
        spread, share = "{least_s:.3f}..{most_s:.3f}".format(**row), row["s"] / result["s"]
        counted = f"{row['gflop']:>10.2f}{row['of_peak']:>9.0%}" if row["gflop"] else f"{'-':>10}{'-':>9}"
        lines.append(f"{part:<9}{row['calls'] or '-':>6}{row['s']:>9.3f}{share:>8.0%}{spread:>18}{counted}")
    return "\n".join(lines)
