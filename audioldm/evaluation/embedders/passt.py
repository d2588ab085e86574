"""PaSST: a vision transformer on spectrograms, whose features and tags are FD and KL in later tables.

Koutini et al. (arXiv:2110.05069).   The weights are the published file (Apache-2.0).   N samples at 32 kHz, T frames.
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as nnf

from audioldm.evaluation.embedders.weights import Network, WeightFile
from audioldm.evaluation.embedders.yamnet import kaldi_bank

RATE = 32000
SPAN, LEAST = 10, 1
"""seconds that the network takes at once, and from which the rest of a last window counts"""
GRID = (12, 99)
"""patches over frequency and time"""
RENAMED = {
    "attn.qkv.": "self_attn.in_proj_", "attn.proj": "self_attn.out_proj", "mlp.fc1": "linear1", "mlp.fc2": "linear2",
}  # fmt: skip
"""in a block: theirs to torch's"""


def log_mel(wave: Tensor) -> Tensor:
    """(B, N) to (B, 1, 128, T): pre-emphasis, power mel, (ln(mel + 1e-5) + 4.5) / 5."""
    wave = wave[:, 1:] - 0.97 * wave[:, :-1]
    window = torch.hann_window(800, periodic=False)
    spectrum = torch.stft(wave, 1024, 320, 800, window, return_complex=True)
    mel = kaldi_bank(128, 1024, RATE, 0.0, 15000.0).T @ spectrum.abs().square()
    return (((mel + 1e-5).log() + 4.5) / 5)[:, None]


def block(width: int) -> nn.Module:
    """Attention of 64 channels a head and an MLP, each on what it is added to after a layer norm."""
    return nn.TransformerEncoderLayer(
        width, width // 64, 4 * width, 0.0, "gelu", 1e-6, batch_first=True, norm_first=True
    )


class Passt(Network):
    """PaSST-S: overlapping patches, places in time and frequency apart, two class tokens."""

    name, rate = "passt", RATE
    front = f"passt/2: consecutive windows of {SPAN} s, zeros up to one, a rest below {LEAST} s left out"
    file = WeightFile(
        "passt-s-f128-p16-s10-ap.476-swa.pt",
        "302903fa8c4aee817b11dc982da0b29aaf8d11a3e722420476d0a12c9db70c2c",
        "https://github.com/kkoutini/PaSST/releases/download/v0.0.1-audioset/passt-s-f128-p16-s10-ap.476-swa.pt",
    )
    # the distillation head is trained with the network, and not used
    unused = ("head_dist.",)

    def __init__(self, *, width: int = 768, depth: int = 12) -> None:
        super().__init__()
        self.dim = width
        self.cls_token, self.dist_token = (nn.Parameter(torch.zeros(1, 1, width)) for _ in range(2))
        self.new_pos_embed = nn.Parameter(torch.zeros(1, 2, width))
        self.freq_new_pos_embed = nn.Parameter(torch.zeros(1, width, GRID[0], 1))
        self.time_new_pos_embed = nn.Parameter(torch.zeros(1, width, 1, GRID[1]))
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(1, width, 16, 10)})
        self.blocks = nn.Sequential(*(block(width) for _ in range(depth)))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 527))

    def read(self, path: Path) -> dict[str, Tensor]:
        """The file's tensors under the names of torch's encoder layers."""
        state = super().read(path)
        for theirs, ours in RENAMED.items():
            state = {key.replace(theirs, ours): value for key, value in state.items()}
        return state

    def features(self, mel: Tensor) -> Tensor:
        """(B, 1, 128, T) to (B, 768); T <= 1000, the frames of 10 s."""
        x = self.patch_embed["proj"](mel)
        x = x + self.time_new_pos_embed[..., : x.shape[3]] + self.freq_new_pos_embed
        tokens = torch.cat([self.cls_token, self.dist_token], dim=1) + self.new_pos_embed
        x = torch.cat([tokens.expand(len(x), -1, -1), x.flatten(2).transpose(1, 2)], dim=1)
        return self.norm(self.blocks(x))[:, :2].mean(dim=1)

    def forward(self, wave: Tensor) -> tuple[Tensor, Tensor]:
        """(N,) to features and logits (P, 527) of each window."""
        windows = torch.split(wave, SPAN * RATE)
        parts = [part for i, part in enumerate(windows) if i == 0 or len(part) >= LEAST * RATE]
        mels = (log_mel(nnf.pad(part, (0, SPAN * RATE - len(part)))[None]) for part in parts)
        features = torch.cat([self.features(mel) for mel in mels])
        return features, self.head(features)
