"""VGGish, the embedder of the classic FAD (Hershey et al., arXiv:1609.09430).   N samples at 16 kHz, P patches.

Weights by torchvggish (Apache-2.0); as in the field's tables without PCA, the last ReLU, overlap and a gain.
"""

from torch import Tensor
from torch.nn import functional as nnf

from audioldm.evaluation.embedders import Network
from audioldm.evaluation.embedders.yamnet import PATCH, RATE, SHORTEST, log_mel

POOLED = {0: True, 3: True, 6: False, 8: True, 11: False, 13: True}  # convolution -> halved after it?


def patches(wave: Tensor) -> Tensor:
    """Log-mel patches (P, 96, 64) of a wave (N,); below 0.975 s it gets zeros, the rest of a last patch is left out."""
    wave = nnf.pad(wave, (0, max(0, SHORTEST - len(wave))))
    return log_mel(wave, 0.01).unfold(0, PATCH, PATCH).transpose(1, 2)


class VGGish(Network):
    """The embedder, one row a patch."""

    name, rate, dim, by_patch = "vggish", RATE, 128, True
    front = "vggish-torch/2: 0.96 s patches, no overlap, no PCA, no last ReLU"
    url = "https://github.com/harritaylor/torchvggish/releases/download/v0.1/vggish-10086976.pth"
    digest = "10086976"

    def forward(self, wave: Tensor) -> tuple[Tensor]:
        """(N,) to (P, 128); channels vary fastest, as in TensorFlow."""
        x = patches(wave)[:, None]
        for i, pooled in POOLED.items():
            x = self.conv(x, f"features.{i}").relu()
            x = nnf.max_pool2d(x, 2) if pooled else x
        x = x.permute(0, 2, 3, 1).flatten(1)
        x = self.linear(self.linear(x, "embeddings.0").relu(), "embeddings.2").relu()
        return (self.linear(x, "embeddings.4"),)
