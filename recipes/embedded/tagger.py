"""YAMNet by torch, for a GPU: tags of a batch of sounds of one length.   B clips, N samples, P patches.

The ONNX graph that ``audioldm.evaluation.embedders.yamnet`` opens, run node by node; a test holds the two together.
"""

from functools import cache
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor
from torch.nn import functional as nnf

from audioldm.evaluation.embedders import yamnet


class Tagger:
    """Waves (B, N) at 16 kHz to embeddings (B, P, 1024) and logits (B, P, 521)."""

    def __init__(self, archive: Path, device: torch.device | str) -> None:
        model = onnx.load_model_from_string(yamnet.float_model(archive))
        self.nodes = list(model.graph.node)
        self.values = {
            tensor.name: torch.from_numpy(np.array(numpy_helper.to_array(tensor))).to(device)
            for tensor in model.graph.initializer
        }
        self.mel = yamnet.mel_matrix().to(device)
        self.window = torch.hann_window(yamnet.WINDOW, device=device)

    @torch.no_grad()
    def __call__(self, wave: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings and logits."""
        step = yamnet.PATCH_HOP * yamnet.HOP
        hops = max(0, -(-(wave.shape[-1] - yamnet.SHORTEST) // step))
        wave = nnf.pad(wave, (0, yamnet.SHORTEST + hops * step - wave.shape[-1]))
        frames = wave.unfold(-1, yamnet.WINDOW, yamnet.HOP) * self.window
        mel = torch.log(torch.fft.rfft(frames, n=yamnet.N_FFT).abs() @ self.mel + yamnet.OFFSET)
        patches = mel.unfold(1, yamnet.PATCH, yamnet.PATCH_HOP).transpose(2, 3)
        values = dict(self.values)
        values["patches"] = patches.flatten(0, 1)[:, None].contiguous()
        for node in self.nodes:
            values[node.output[0]] = self.run(node, [values[name] for name in node.input])
        shape = (len(wave), -1)
        return values["embedding"].unflatten(0, shape), values["logits"].unflatten(0, shape)

    def run(self, node: onnx.NodeProto, inputs: list[Tensor]) -> Tensor:
        """One node."""
        options = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        match node.op_type:
            case "Conv":
                x, weight, *bias = inputs
                top, left, bottom, right = options.get("pads", (0, 0, 0, 0))
                x = nnf.pad(x, (left, right, top, bottom))
                stride, groups = tuple(options.get("strides", (1, 1))), int(options.get("group", 1))
                return nnf.conv2d(x, weight, bias[0] if bias else None, stride=stride, groups=groups)
            case "Relu":
                return inputs[0].relu()
            case "Clip":
                return inputs[0].clamp(float(inputs[1]), float(inputs[2]) if len(inputs) > 2 else None)
            case "GlobalAveragePool":
                return inputs[0].mean((2, 3), keepdim=True)
            case "ReduceMean":
                return inputs[0].mean((2, 3), keepdim=bool(options.get("keepdims", 1)))
            case "Flatten":
                return inputs[0].flatten(1)
            case "Gemm":
                x, weight, bias = inputs
                return nnf.linear(x, weight if options.get("transB") else weight.T, bias)
        raise ValueError(f"YAMNet's graph has a node {node.op_type} that is not known here.")


@cache
def class_names(folder: Path) -> list[str]:
    """AudioSet's names in the order of the logits, from the package's folder."""
    import csv

    with (folder / "yamnet_class_map.csv").open(newline="", encoding="utf-8") as file:
        return [row["display_name"] for row in csv.DictReader(file)]
