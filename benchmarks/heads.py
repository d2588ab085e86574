"""How far a converted folder's 8 heads are from the heads of the training, on random weights of the published shapes.

    python -m benchmarks.heads [s m l 2]

Relative error of the U-Net's answer, root mean square.   Two kinds of random weights: as the libraries start them,
which is small, and with unit gain in every layer, which lets attention count.   Trained weights lie elsewhere.
"""

import gc
import sys
from collections.abc import Callable

import torch
from torch import Tensor, nn

from audioldm.batch import Condition
from audioldm.convert.build import PUBLISHED_AS, original_heads
from audioldm.nets.unet import build_unet, build_unet_of_contexts, net_call

CHANNELS = {
    "s": (128, 256, 384, 640),
    "m": (192, 384, 576, 960),
    "l": (256, 512, 768, 1280),
    "2": (128, 256, 384, 640),
}
"""AudioLDM's three, and AudioLDM 2"""


def builder(size: str) -> Callable[[int | tuple[int, ...]], nn.Module]:
    """From heads to the U-Net of a size."""
    channels = CHANNELS[size]
    if size == "2":
        return lambda heads: build_unet_of_contexts((None, 768, 1024), channels=channels, heads=heads)
    return lambda heads: build_unet(channels=channels, heads=heads)


def draw(*shape: int, seed: int) -> Tensor:
    """Unit noise."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def unit_gain(net: nn.Module, seed: int = 0) -> None:
    """Weights of variance 1 / fan-in in every layer."""
    g = torch.Generator().manual_seed(seed)
    for value in net.parameters():
        if value.dim() > 1:
            value.normal_(generator=g).div_(value[0].numel() ** 0.5)


@torch.no_grad()
def difference(size: str, *, lively: bool) -> float:
    """|8 heads - the original's| / |the original's| over two times of diffusion and two conditions."""
    torch.manual_seed(0)
    build = builder(size)
    right = build(original_heads(CHANNELS[size])).eval()
    if lively:
        unit_gain(right)
    with torch.device("meta"):
        wrong = build(PUBLISHED_AS)
    wrong.load_state_dict(right.state_dict(), assign=True)
    told = Condition(film=nn.functional.normalize(draw(2, 512, seed=1), dim=-1))
    if size == "2":
        told = Condition(None, draw(2, 8, 768, seed=1), None, draw(2, 12, 1024, seed=2), None)
    x, t = draw(2, 8, 64, 16, seed=3), torch.tensor([1, 801])
    truth, other = (net_call(net)(x, t, told) for net in (right, wrong.eval()))  # type: ignore[arg-type]
    return float((other - truth).norm() / truth.norm())


def main(sizes: list[str]) -> None:
    """Print a table."""
    print("| U-Net | heads of the training | as the libraries start | unit gain |\n|---|---|--:|--:|")
    for size in sizes or list(CHANNELS):
        errors = []
        for lively in (False, True):
            errors.append(f"{difference(size, lively=lively):.2%}")
            gc.collect()
        heads = ", ".join(map(str, original_heads(CHANNELS[size])))
        print(f"| {size} | {heads} | {' | '.join(errors)} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
