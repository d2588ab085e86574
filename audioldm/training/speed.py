"""What makes the same training faster or smaller: compiled blocks, memory layout, recomputed activations, graphs."""

from dataclasses import dataclass

import torch
from diffusers.models.modeling_utils import ModelMixin
from torch import nn

from audioldm.errors import AudioLDMError
from audioldm.training.distributed import blocks
from audioldm.training.graphed import record
from audioldm.training.module import TrainingModule


@dataclass(frozen=True)
class Speed:
    """``compile``: a torch.compile backend such as "inductor", block by block, or None.

    A block compiles in seconds where a whole U-Net takes minutes, and equal blocks share the work.   ``channels_last``
    is for GPUs with tensor cores and bf16 (a CPU loses by it).   ``checkpointing`` stores only the blocks' inputs and
    computes the rest again in the backward pass: a third more time for a fraction of the memory.   ``graph`` records
    whole steps as CUDA graphs.
    """

    compile: str | None = None
    channels_last: bool = False
    checkpointing: bool = False
    graph: bool = False

    def apply(self, module: TrainingModule) -> None:
        """Change the nets that ``module`` trains, and how it steps."""
        for net in module.components().values():
            self.change(net)
        if self.graph:
            record(module)

    def change(self, net: nn.Module) -> None:
        """Change ``net`` in place; names and values of its weights stay."""
        if self.checkpointing:
            if not (isinstance(net, ModelMixin) and net._supports_gradient_checkpointing):
                raise AudioLDMError(
                    f"{type(net).__name__} cannot recompute its activations.",
                    "Use speed.checkpointing=false.",
                )
            net.enable_gradient_checkpointing()
        if self.channels_last:
            net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if self.compile is not None:
            if self.compile not in torch._dynamo.list_backends(exclude_tags=()):
                known = ", ".join(torch._dynamo.list_backends())
                raise AudioLDMError(
                    f"speed.compile={self.compile!r} is no backend.", f"Known: {known}, or null."
                )
            for block in blocks(net):
                block.compile(backend=self.compile)
