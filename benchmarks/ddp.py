"""Two GPUs against one: how training scales, and that both learn the same.

    torchrun --nproc-per-node 2 -m benchmarks.ddp --out benchmarks/results/ddp.json
    torchrun --nproc-per-node 2 -m benchmarks.ddp --rehearse            # toy size, on the CPU

Scaling: clips/s of the U-Net's training step (bfloat16 autocast, S) on one rank alone, then on all under DDP with the
same batch each.   Equality: in float32, the mean of the ranks' gradients on their parts of a batch is the gradient of
the whole batch on one; the tolerance is float32's rounding over sums in another order.
"""

import argparse
import os
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from audioldm.batch import Condition
from audioldm.diffusion import objective
from audioldm.diffusion.schedule import audioldm
from audioldm.nets.unet import net_call
from audioldm.spec import AudioSpec
from audioldm.training.steps import adamw
from benchmarks.measure import Book, Row, machine, paired
from benchmarks.shapes import build


class Loss(nn.Module):
    """The training loss as a module, which is what DDP wraps."""

    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, z: Tensor, t: Tensor, noise: Tensor, film: Tensor) -> Tensor:
        """Mean loss of the batch."""
        call = net_call(self.unet)  # type: ignore[arg-type]
        return objective.loss(
            lambda x, steps: call(x, steps, Condition(film=film)), z, t, noise, audioldm()
        ).mean()


def draws(batch: int, seconds: float, device: str, *, seed: int) -> tuple[Tensor, ...]:
    """z, t, noise, film of a batch; the same on every rank for the same seed."""
    rng = torch.Generator().manual_seed(seed)
    shape = AudioSpec().latent_shape(seconds, 8)
    z, noise = (torch.randn(batch, *shape, generator=rng) for _ in range(2))
    t = objective.draw_t(batch, audioldm(), generator=rng)
    film = nn.functional.normalize(torch.randn(batch, 512, generator=rng), dim=-1)
    return tuple(part.to(device) for part in (z, t, noise, film))


def step_of(module: nn.Module, given: tuple[Tensor, ...], device: str):  # type: ignore[no-untyped-def]
    """One optimiser step in bfloat16 autocast."""
    optimizer = adamw(module.parameters(), 1e-5)

    def step() -> None:
        with torch.autocast(device.split(":")[0], torch.bfloat16):
            loss = module(*given)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def equality(module: Loss, wrapped: nn.Module, given: tuple[Tensor, ...], rank: int, ranks: int) -> Row:
    """Greatest gradient difference over the greatest gradient, DDP's against the whole batch's."""
    before, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, False
    module.zero_grad()
    wrapped(*(part.chunk(ranks)[rank] for part in given)).backward()
    shared = [p.grad.clone() for p in module.parameters() if p.grad is not None]
    module.zero_grad()
    module(*given).backward()
    whole = [p.grad.clone() for p in module.parameters() if p.grad is not None]
    module.zero_grad()
    torch.backends.cudnn.allow_tf32 = before
    top = max(float(w.abs().max()) for w in whole)
    gap = max(float((s - w).abs().max()) for s, w in zip(shared, whole, strict=True))
    return {
        "max_gradient_difference_over_max_gradient": gap / top,
        "tolerance": 1e-4,
        "equal": gap / top < 1e-4,
    }


def main() -> None:
    """Run on every rank; rank 0 writes."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/ddp.json"))
    parser.add_argument("--rehearse", action="store_true")
    parser.add_argument("--size", default="S", choices=("S", "M", "L"))
    parser.add_argument("--batch", type=int, default=16, help="clips a rank")
    options = parser.parse_args()
    cuda = not options.rehearse
    dist.init_process_group("nccl" if cuda else "gloo")
    rank, ranks = dist.get_rank(), dist.get_world_size()
    device = f"cuda:{int(os.environ['LOCAL_RANK'])}" if cuda else "cpu"
    if cuda:
        torch.cuda.set_device(device)
    seconds, batch = (2.56, 2) if options.rehearse else (10.24, options.batch)
    unet = build(options.size, device, tiny=options.rehearse).unet.train().requires_grad_(True)
    module = Loss(unet)
    wrapped = DistributedDataParallel(module, device_ids=[device] if cuda else None)
    book = Book(options.out, seconds=240, about={"what": "ddp", "ranks": ranks, "machine": machine(device)})
    if rank:
        book.write = lambda: None  # type: ignore[method-assign]
    same = draws(2 * ranks, seconds, device, seed=0)
    book.add("ddp", "gradients equal", lambda: equality(module, wrapped, same, rank, ranks))
    given = draws(batch, seconds, device, seed=rank)
    times: dict[str, float] = {}
    for name, net in (("one rank alone", module), (f"{ranks} ranks", wrapped)):

        def run(name: str = name, net: nn.Module = net) -> Row:
            dist.barrier()
            row: Row = {}
            if net is wrapped or rank == 0:
                row = paired({name: step_of(net, given, device)}, device, repeats=10, warm=3, most=1e9)[name]
                times[name] = row["s"]
                row["clips_per_s"] = (ranks if net is wrapped else 1) * batch / row["s"]
            dist.barrier()
            return row

        book.add("ddp", f"{options.size}, batch {batch} a rank: {name}", run)
    if rank == 0 and len(times) == 2:
        alone, together = times.values()
        book.add("ddp", "scaling", lambda: {"share_of_linear": alone / together})
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
