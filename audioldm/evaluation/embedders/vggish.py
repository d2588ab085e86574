"""VGGish, the embedder of the classic FAD, in its PyTorch convention.   N samples at 16 kHz, P patches of 0.96 s.

Hershey et al. (arXiv:1609.09430).   The weights are torchvggish's file (Apache-2.0); as in the tables of this field
there is no PCA and no last ReLU, patches do not overlap, and the level is the clip's own.
"""

from torch import Tensor, nn
from torch.nn import functional as nnf

from audioldm.evaluation.embedders.weights import Network, WeightFile
from audioldm.evaluation.embedders.yamnet import PATCH, RATE, SHORTEST, log_mel

LAYERS = (64, 0, 128, 0, 256, 256, 0, 512, 512, 0)
"""output channels of the 3 x 3 convolutions; 0 halves both axes"""


def patches(wave: Tensor) -> Tensor:
    """Log-mel patches (P, 96, 64) of a wave (N,); below 0.975 s it gets zeros, the rest of a last patch is left out."""
    wave = nnf.pad(wave, (0, max(0, SHORTEST - len(wave))))
    return log_mel(wave, 0.01).unfold(0, PATCH, PATCH).transpose(1, 2)


class VGGish(Network):
    """The embedder, one row a patch."""

    name, rate, dim, by_patch = "vggish", RATE, 128, True
    front = "vggish-torch/2: 0.96 s patches, no overlap, no PCA, no last ReLU"
    file = WeightFile(
        "vggish-10086976.pth",
        "10086976",
        "https://github.com/harritaylor/torchvggish/releases/download/v0.1/vggish-10086976.pth",
    )

    def __init__(self) -> None:
        super().__init__()
        stages: list[nn.Module] = []
        width = 1
        for channels in LAYERS:
            stages += [nn.Conv2d(width, channels, 3, padding=1), nn.ReLU()] if channels else [nn.MaxPool2d(2)]
            width = channels or width
        self.features = nn.Sequential(*stages)
        self.embeddings = nn.Sequential(
            nn.Linear(512 * 4 * 6, 4096), nn.ReLU(), nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, 128)
        )

    def forward(self, wave: Tensor) -> tuple[Tensor]:
        """(N,) to (P, 128); channels vary fastest, as in TensorFlow."""
        x = self.features(patches(wave)[:, None])
        return (self.embeddings(x.permute(0, 2, 3, 1).flatten(1)),)
