"""``audioldm bench``: how fast a model generates here, where the time goes, and how near the machine's best that is."""

from collections.abc import Callable
from statistics import median
from typing import TYPE_CHECKING, Any

from audioldm.cli.console import progress, waiting, would
from audioldm.cli.options import AsJson, Between, Command, DryRun, argument, changed, option
from audioldm.cli.options.groups import ModelOptions, Sampling
from audioldm.cli.startup import loading

if TYPE_CHECKING:
    from audioldm.pipeline.audioldm import AudioLDM


class Bench(DryRun, AsJson, Command):
    """Time a model on this machine, part by part.

    Median of the runs; gflop counts a multiply-add as two; "of peak" compares with a large matrix product in the same
    number type here, so 100 % is a floor that nothing with these layers goes below.

    \b
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
        sampling, model = self.sampling, self.model
        model.check()
        with waiting("loading torch and the model"), loading():
            sampling.check(model.device)
            if self.dry_run:
                settings = changed(sampling, model) or "the model's own settings"
                what = f"{self.batch_size} clips of {self.prompt!r}, {self.repeat} times after a warm-up"
                would(f"{what}; {settings}")
                return
            pipe = model.load()
        with progress(self.repeat + 1, "runs") as step:
            result = self.measure(pipe, step)
        self.show(result, table(result))

    def measure(self, pipe: "AudioLDM", step: Callable[[], None]) -> dict[str, Any]:
        import torch

        from audioldm.pipeline import timing

        settings, size = self.sampling.named(), self.batch_size

        def run() -> None:
            pipe([self.prompt] * size, seeds=range(size), batch_size=size, **settings)
            step()

        # warms up; recorded graphs hide their operations
        counted = timing.trace(pipe, run, count=pipe.mode == "exact")
        runs = [timing.trace(pipe, run) for _ in range(self.repeat)]
        length, peak = pipe.defaults.merged(**settings).seconds, timing.matmul_rate(pipe.device, pipe.dtype)
        whole = median(usage["all"].seconds for usage in runs)

        def row(part: str) -> dict[str, Any]:
            flops, times = counted[part].flops, [usage[part].seconds for usage in runs]
            return {
                "s": median(times), "least_s": min(times), "most_s": max(times),
                "calls": runs[-1][part].calls, "gflop": flops / 1e9,
                "of_peak": flops / median(times) / peak if flops else None,
            }  # fmt: skip

        return {
            "model": pipe.name, "mode": pipe.mode, "dtype": str(pipe.dtype).removeprefix("torch."),
            "device": torch.cuda.get_device_name(pipe.device) if pipe.device.type == "cuda" else "cpu",
            "threads": torch.get_num_threads(), "clips": size, "seconds": length,
            "steps": pipe.defaults.merged(**settings).steps, "s": whole,
            "real_time_factor": whole / (length * size), "clips_per_minute": 60 * size / whole,
            "peak_mib": timing.peak_mib(pipe.device), "peak_gflop_per_s": peak / 1e9,
            "parts": {part: row(part) for part in timing.PARTS},
        }  # fmt: skip


def table(result: dict[str, Any]) -> str:
    lines = [
        f"{result['model']}, {result['mode']} ({result['dtype']}) on {result['device']}, {result['threads']} threads: "
        f"{result['clips']} x {result['seconds']:g} s, {result['steps']} steps",
        f"{result['s']:.3f} s, {result['real_time_factor']:.3f} of real time, "
        f"{result['clips_per_minute']:.1f} clips/min, peak memory {result['peak_mib']:.0f} MiB, "
        f"matrix peak {result['peak_gflop_per_s']:.0f} GFLOP/s",
        f"{'part':<9}{'calls':>6}{'s':>9}{'share':>8}{'least..most':>18}{'gflop':>10}{'of peak':>9}",
    ]
    for part, row in result["parts"].items():
        spread = f"{row['least_s']:.3f}..{row['most_s']:.3f}"
        counted = f"{row['gflop']:>10.2f}{row['of_peak']:>9.0%}" if row["gflop"] else f"{'-':>10}{'-':>9}"
        share = row["s"] / result["s"]
        lines.append(f"{part:<9}{row['calls'] or '-':>6}{row['s']:>9.3f}{share:>8.0%}{spread:>18}{counted}")
    return "\n".join(lines)
