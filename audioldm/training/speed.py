"""What makes the same training faster or smaller: compiled blocks, memory layout, recomputed activations, graphs."""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from diffusers import Transformer2DModel
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.resnet import ResnetBlock2D
from torch import nn

from audioldm.errors import AudioLDMError
from audioldm.training.graphed import record
from audioldm.training.module import TrainingModule

Compiled = Literal["attentions", "blocks"]


@dataclass(frozen=True)
class Speed:
    """``compile``: the parts of a U-Net that inductor compiles one by one, or None.

    "attentions" are the transformers: three kinds in AudioLDM's U-Net, half a minute; "blocks" the residual blocks
    too.   Equal ones share the work; a whole U-Net takes minutes.   ``channels_last`` is for GPUs with tensor cores
    and bf16 (a CPU loses by it), and brings the norms of ``group_norm``.   ``checkpointing`` stores only the blocks'
    inputs and computes the rest again in the backward pass: a third more time for a fraction of the memory.
    ``graph`` records whole steps as CUDA graphs.
    """

    compile: Compiled | None = None
    channels_last: bool = False
    checkpointing: bool = False
    graph: bool = False

    def __post_init__(self) -> None:
        if self.compile not in (None, *get_args(Compiled)):
            raise AudioLDMError(f"speed.compile={self.compile!r}.", "Use attentions, blocks or null.")

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
            if torch.cuda.is_available():
                from audioldm.training.norms import swap

                swap(net)
        if self.compile is not None:
            # one entry a shape; beyond the limit dynamo would run a block as it is, and say nothing
            torch._dynamo.config.recompile_limit = 64
            kinds = (Transformer2DModel, *([ResnetBlock2D] if self.compile == "blocks" else []))
            for block in (part for part in net.modules() if isinstance(part, kinds)):
                block.compile(dynamic=False)
