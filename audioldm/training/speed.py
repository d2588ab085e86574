"""What makes the same training faster or smaller: compiled blocks, memory layout, recomputed activations, graphs."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from diffusers import Transformer2DModel
from diffusers.models.modeling_utils import ModelMixin
from torch import nn

from audioldm.errors import AudioLDMError
from audioldm.training.graphed import record
from audioldm.training.module import TrainingModule


@dataclass(frozen=True)
class Speed:
    """``compile``: inductor compiles a U-Net's transformers one by one; equal ones share the work.

    They are three kinds in AudioLDM's, half a minute; residual blocks besides take minutes and give no more than
    ``channels_last`` does.   That is for GPUs with tensor cores and bf16 (a CPU loses by it), and brings the group
    norms of ``norms``.   ``checkpointing`` stores only the blocks' inputs and computes the rest again in the backward
    pass: a third more time for a fraction of the memory.   ``graph`` records whole steps as CUDA graphs.
    """

    compile: bool = False
    channels_last: bool = False
    checkpointing: bool = False
    graph: bool = False

    def apply(self, module: TrainingModule) -> None:
        """Change the nets that ``module`` trains, and how it steps."""
        for change in [change for name, change in CHANGES.items() if getattr(self, name)]:
            for net in module.components().values():
                change(net)
        if self.graph:
            record(module)


def recompute(net: nn.Module) -> None:
    """Compute activations again in the backward pass.   Raises AudioLDMError for a net that cannot."""
    if not (isinstance(net, ModelMixin) and net._supports_gradient_checkpointing):
        raise AudioLDMError(
            f"{type(net).__name__} cannot recompute its activations.", "Use speed.checkpointing=false."
        )
    net.enable_gradient_checkpointing()


def lay_channels_last(net: nn.Module) -> None:
    """Channels last in memory, and the norms for it where there is a GPU."""
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if torch.cuda.is_available():
        from audioldm.training.norms import swap

        swap(net)


def compile_transformers(net: nn.Module) -> None:
    """Compile each transformer by itself."""
    # one entry a shape; beyond the limit dynamo would run a block as it is, and say nothing
    torch._dynamo.config.recompile_limit = 64
    for part in net.modules():
        if isinstance(part, Transformer2DModel):
            part.compile(dynamic=False)


CHANGES: dict[str, Callable[[nn.Module], None]] = {
    "checkpointing": recompute,
    "channels_last": lay_channels_last,
    "compile": compile_transformers,
}
"""setting of Speed -> what changes a net in place; names and values of its weights stay"""
