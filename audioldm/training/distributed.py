"""Several processes: data parallel, or fully sharded.   Each sees its own part of one batch; see ``data.Draws``."""

import copy
import os
from collections.abc import Iterator
from typing import Any

from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from transformers import SpeechT5HifiGan


def rank() -> int:
    """Number of this process among all, by what torchrun or Lightning's launcher put into the environment."""
    return int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")))


class Sharded(ModelParallelStrategy):
    """Splits over every process; Lightning's own default splits over machines only."""

    def setup_environment(self) -> None:
        self._data_parallel_size, self._tensor_parallel_size = self.num_nodes * self.num_processes, 1
        super().setup_environment()


def shard(module: nn.Module, mesh: Any) -> None:
    """Split trained nets among the processes of ``mesh``, block by block (FSDP2); of a CLAP or VAE each part apart."""
    for child in module.children():
        several = hasattr(child, "audio_encoder") or hasattr(child, "decoder")
        for net in child.children() if several else [child]:
            if any(p.requires_grad for p in net.parameters()):
                for part in (*blocks(net), net):
                    fully_shard(part, mesh=mesh)


def blocks(net: nn.Module) -> Iterator[nn.Module]:
    """The repeated parts of a net: a U-Net's or an autoencoder's blocks, a vocoder's residual stacks."""
    if isinstance(net, SpeechT5HifiGan):
        yield from net.resblocks
    for name, child in net.named_modules():
        last = name.rpartition(".")[2]
        if last in ("down_blocks", "up_blocks") and isinstance(child, nn.ModuleList):
            yield from child
        if last == "mid_block":
            yield child


def local(value: Tensor) -> Tensor:
    """Own part of a split tensor, in the same memory; any other as it is."""
    return value.to_local() if hasattr(value, "to_local") else value


def whole(value: Tensor) -> Tensor:
    """A split tensor joined, which all processes must ask for together; any other as it is."""
    return value.full_tensor() if hasattr(value, "full_tensor") else value


def like(value: Any, stored: Tensor) -> Tensor:
    """``stored`` (joined) laid out as ``value`` is: on its device, or split among its processes."""
    if hasattr(value, "device_mesh"):
        from torch.distributed.tensor import distribute_tensor

        placed: Tensor = distribute_tensor(stored.to(value.device), value.device_mesh, value.placements)
        return placed
    return stored.detach().clone().to(value.device)


def joined(net: Any) -> Any:
    """``net``, or where it is split a plain copy with joined weights; all processes must ask together."""
    if not any(hasattr(p, "device_mesh") for p in net.parameters()):
        return net
    if hasattr(net, "audio_encoder"):
        plain: Any = copy.copy(net)
        plain._modules = dict(net._modules)
        plain.text_encoder, plain.audio_encoder = joined(net.text_encoder), joined(net.audio_encoder)
        return plain
    build: Any = next(kind for kind in type(net).__mro__ if not issubclass(kind, FSDPModule))
    plain = build.from_config(net.config) if hasattr(build, "from_config") else build(net.config)
    plain.load_state_dict({key: whole(value).cpu() for key, value in net.state_dict().items()}, strict=True)
    return plain
