"""Where the time of one generation goes: spans of wall time by part, and the floating-point operations of each part."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.flop_counter import FlopCounterMode

if TYPE_CHECKING:
    from audioldm.pipeline.audioldm import AudioLDM

PARTS = ("text", "unet", "vae", "vocoder", "rest")
"""``rest`` is what lies between: the sampler, the noise, the phase refinement."""


@dataclass(frozen=True)
class Span:
    """One call of a part: seconds since the run began, and its operations (a multiply-add counts two)."""

    part: str
    start: float
    end: float
    flops: int = 0


def wait(device: torch.device) -> None:
    """Until a GPU has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def trace(pipe: "AudioLDM", run: Callable[["AudioLDM"], Any], *, count: bool = False) -> list[Span]:
    """The spans of ``run(pipe)``, last the whole as part "all"; ``count`` also counts operations, which is slower.

    The pipeline is observed through its engine and its text encoder, and left as it was.
    """
    spans: list[Span] = []
    begun = time.perf_counter()

    def watched(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            wait(pipe.device)
            start = time.perf_counter()
            if count:
                with FlopCounterMode(display=False) as counter:
                    answer = function(*given, **named)
            else:
                answer = function(*given, **named)
            wait(pipe.device)
            flops = counter.get_total_flops() if count else 0
            spans.append(Span(part, start - begun, time.perf_counter() - begun, flops))
            return answer

        return call

    engine, embed = pipe.engine, pipe.clap.embed_text
    pipe._engine = replace(
        engine,
        unet=watched("unet", engine.unet),
        decode=watched("vae", engine.decode),
        vocode=watched("vocoder", engine.vocode),
    )
    pipe.clap.embed_text = watched("text", embed)  # type: ignore[method-assign]
    try:
        run(pipe)
    finally:
        pipe._engine = engine
        del pipe.clap.embed_text
    wait(pipe.device)
    return [*spans, Span("all", 0.0, time.perf_counter() - begun)]


def shares(spans: list[Span]) -> dict[str, float]:
    """Seconds by part; with "rest" they add up to "all".

    >>> shares([Span("unet", 0.1, 0.4), Span("unet", 0.5, 0.75), Span("all", 0.0, 1.0)])["rest"]
    0.45
    """
    seconds = dict.fromkeys((*PARTS, "all"), 0.0)
    for span in spans:
        seconds[span.part] += span.end - span.start
    seconds["rest"] = round(seconds["all"] - sum(seconds[p] for p in PARTS[:-1]), 9)
    return seconds


def matmul_rate(device: torch.device, dtype: torch.dtype, *, size: int = 1024) -> float:
    """Operations a second of a large matrix product here: the peak that shares are taken of; the best of ten.

    After a second fewer will do: where a processor has no instructions for the type, one takes several.
    """
    size = size * (8 if device.type == "cuda" else 1)
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    a @ b
    times: list[float] = []
    while len(times) < 10 and sum(times) < 1.0:
        wait(device)
        start = time.perf_counter()
        a @ b
        wait(device)
        times.append(time.perf_counter() - start)
    return 2 * size**3 / min(times)
