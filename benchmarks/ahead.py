"""Two ideas for a CPU that are not in the product, measured: a U-Net exported ahead of time, and weights of one byte.

    python -m benchmarks.ahead --out benchmarks/results/ahead.json          # ten minutes: compiling is most of it

Ahead of time: ``torch.export`` and AOTInductor write a library once; every later process loads it and traces nothing.
One byte: a linear layer's weights as int8 with a scale for each row (torch's own weight-only product), the input in
bfloat16; the U-Net's convolutions have no such product.   Both beside plain bfloat16, the mode ``fast``, in turn.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from audioldm.batch import Condition
from audioldm.nets.unet import net_call
from benchmarks.measure import Book, Row, machine, paired
from benchmarks.shapes import unet_of

SHAPE = (2, 8, 256, 16)
"""A guided call for 10.24 s: (B, C, T, F)"""


class Film(nn.Module):
    """A U-Net as a function of tensors alone, which is what can be exported."""

    def __init__(self, unet: Any) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, x: Tensor, t: Tensor, film: Tensor) -> Tensor:
        """x (B, C, T, F), t (B,), film (B, D) -> (B, C, T, F)."""
        return net_call(self.unet)(x, t, Condition(film))


def given(film: int = 512) -> tuple[Tensor, Tensor, Tensor]:
    """The inputs of a call, the same in every process."""
    rng = torch.Generator().manual_seed(0)
    x, told = torch.randn(SHAPE, generator=rng), torch.randn(SHAPE[0], film, generator=rng)
    return x.bfloat16(), torch.tensor([500.0, 500.0]), told.bfloat16()


def net(*, tiny: bool) -> Film:
    """The S shape in bfloat16 with the same random weights in every process."""
    torch.manual_seed(0)
    return Film(unet_of("S", tiny=tiny).bfloat16().eval())


def compile_ahead(file: Path, *, tiny: bool) -> Row:
    """Export and compile into ``file``; its size and the seconds of both steps."""
    start = time.perf_counter()
    program = torch.export.export(net(tiny=tiny), given(), strict=False)
    traced = time.perf_counter()
    torch._inductor.aoti_compile_and_package(program, package_path=str(file))
    return {
        "export_s": traced - start,
        "compile_s": time.perf_counter() - traced,
        "mib": file.stat().st_size / 2**20,
    }


def second_process(file: Path) -> Row:
    """Seconds to load and to call first, in a process of its own that has torch already."""
    code = (
        "import time, torch; from benchmarks.ahead import given; a = given(); s = time.perf_counter();"
        f"f = torch._inductor.aoti_load_package({str(file)!r}); l = time.perf_counter(); f(*a);"
        "print(l - s, time.perf_counter() - l)"
    )
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    load, call = map(float, told.stdout.split()[-2:])
    return {"load_s": load, "first_call_s": call}


def relative(made: Tensor, exact: Tensor) -> float:
    """Greatest error over greatest value."""
    return float((made.float() - exact.float()).abs().max() / exact.float().abs().max())


def calls(file: Path, *, tiny: bool, repeats: int) -> Row:
    """A guided call eager and ahead of time, in turn."""
    eager, ahead, inputs = net(tiny=tiny), torch._inductor.aoti_load_package(str(file)), given()
    channels_last = (inputs[0].contiguous(memory_format=torch.channels_last), *inputs[1:])
    eager.to(memory_format=torch.channels_last)
    times = paired(
        {"fast": lambda: eager(*channels_last), "ahead": lambda: ahead(*inputs)}, "cpu", repeats=repeats
    )
    error = relative(ahead(*inputs), eager(*channels_last))
    return {**{name: row["s"] for name, row in times.items()}, "n": repeats, "relative_error": error}


def one_byte(rows: int, width: int, out: int, *, repeats: int) -> Row:
    """A linear layer (rows, width) -> (rows, out) in bfloat16 and with int8 weights, in turn."""
    rng = torch.Generator().manual_seed(0)
    x, weight = torch.randn(rows, width, generator=rng).bfloat16(), torch.randn(out, width, generator=rng)
    scale = weight.abs().amax(dim=1) / 127
    packed, scales = (weight / scale[:, None]).round().to(torch.int8), scale.bfloat16()
    dense = weight.bfloat16()
    runs = {
        "bf16": lambda: nn.functional.linear(x, dense),
        "int8": lambda: torch._weight_int8pack_mm(x, packed, scales),
    }
    times = paired(runs, "cpu", repeats=repeats, warm=3)
    error = relative(runs["int8"](), x.float() @ weight.T)
    return {**{name: 1e3 * row["s"] for name, row in times.items()}, "unit": "ms", "relative_error": error}


def bytes_by_kind(*, tiny: bool) -> Row:
    """MiB of the U-Net's weights in bfloat16: of its linear layers, which int8 could halve, and of all."""
    unet = net(tiny=tiny)
    linear = sum(m.weight.numel() for m in unet.modules() if isinstance(m, nn.Linear))
    return {
        "linear_mib": linear * 2 / 2**20,
        "all_mib": sum(p.numel() for p in unet.parameters()) * 2 / 2**20,
    }


def main() -> None:
    """Every row, written as it comes."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/ahead.json"))
    parser.add_argument("--file", type=Path, default=Path("out/unet.pt2"), help="the compiled net goes here")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=900)
    parser.add_argument("--rehearse", action="store_true", help="a toy U-Net")
    options = parser.parse_args()
    options.file.parent.mkdir(parents=True, exist_ok=True)
    book = Book(options.out, seconds=options.seconds, about={"what": "ahead", "machine": machine("cpu")})
    tiny, file, repeats = options.rehearse, options.file, options.repeats
    with torch.inference_mode():
        book.add("weights", "by kind", lambda: bytes_by_kind(tiny=tiny))
        for size in ((2 * 4096, 128, 128), (2 * 1024, 256, 1024), (2 * 256, 384, 1536), (2 * 64, 640, 2560)):
            book.add("int8", "x".join(map(str, size)), lambda size=size: one_byte(*size, repeats=repeats))  # type: ignore[misc]
    with torch.no_grad():
        if book.add("ahead", "compile", lambda: compile_ahead(file, tiny=tiny), needs=60):
            book.add("ahead", "second process", lambda: second_process(file))
            book.add("ahead", "call", lambda: calls(file, tiny=tiny, repeats=repeats))


if __name__ == "__main__":
    main()
