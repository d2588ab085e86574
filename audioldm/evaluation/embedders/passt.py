"""PaSST, behind FD and KL of later tables: arXiv:2110.05069, weights Apache-2.0.   N samples at 32 kHz, T frames."""

import torch
from torch import Tensor
from torch.nn import functional as nnf

from audioldm.evaluation.embedders import Network
from audioldm.evaluation.embedders.yamnet import kaldi_bank

RATE = 32000
SPAN, LEAST = 10, 1  # seconds that the network takes at once, and from which the rest of a last window counts


def log_mel(wave: Tensor) -> Tensor:
    """(B, N) to (B, 1, 128, T): pre-emphasis, power mel, (ln(mel + 1e-5) + 4.5) / 5."""
    wave = wave[:, 1:] - 0.97 * wave[:, :-1]
    spectrum = torch.stft(wave, 1024, 320, 800, torch.hann_window(800, periodic=False), return_complex=True)
    mel = kaldi_bank(128, 1024, RATE, 0.0, 15000.0).T @ spectrum.abs().square()
    return (((mel + 1e-5).log() + 4.5) / 5)[:, None]


class Passt(Network):
    """PaSST-S: overlapping patches, places in time and frequency apart, two class tokens."""

    name, rate, dim = "passt", RATE, 768
    front = f"passt/2: consecutive windows of {SPAN} s, zeros up to one, a rest below {LEAST} s left out"
    url = "https://github.com/kkoutini/PaSST/releases/download/v0.0.1-audioset/passt-s-f128-p16-s10-ap.476-swa.pt"
    digest = "302903fa8c4aee817b11dc982da0b29aaf8d11a3e722420476d0a12c9db70c2c"

    def layer_norm(self, x: Tensor, name: str, eps: float = 1e-6) -> Tensor:
        weight, bias = self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"]
        return nnf.layer_norm(x, x.shape[-1:], weight, bias, eps)

    def features(self, mel: Tensor) -> Tensor:
        """(B, 1, 128, T) to (B, 768), the mean of two class tokens; T <= 1000, the frames of 10 s."""
        w = self.tensors
        x = nnf.conv2d(mel, w["patch_embed.proj.weight"], w["patch_embed.proj.bias"], stride=10)
        x = x + w["time_new_pos_embed"][..., : x.shape[3]] + w["freq_new_pos_embed"]
        tokens = torch.cat([w["cls_token"], w["dist_token"]], dim=1) + w["new_pos_embed"]
        x = torch.cat([tokens.expand(len(x), -1, -1), x.flatten(2).transpose(1, 2)], dim=1)
        for i in range(sum(key.endswith("attn.proj.bias") for key in w)):
            block = f"blocks.{i}"
            qkv = self.linear(self.layer_norm(x, f"{block}.norm1"), f"{block}.attn.qkv")
            q, k, v = qkv.unflatten(-1, (3, -1, 64)).permute(2, 0, 3, 1, 4)  # (B, heads, L, 64)
            heads = nnf.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
            x = x + self.linear(heads, f"{block}.attn.proj")
            hidden = nnf.gelu(self.linear(self.layer_norm(x, f"{block}.norm2"), f"{block}.mlp.fc1"))
            x = x + self.linear(hidden, f"{block}.mlp.fc2")
        return self.layer_norm(x, "norm")[:, :2].mean(dim=1)

    def forward(self, wave: Tensor) -> tuple[Tensor, Tensor]:
        """(N,) to features and logits (P, 527) of each window."""
        windows = torch.split(wave, SPAN * RATE)
        parts = [part for i, part in enumerate(windows) if i == 0 or len(part) >= LEAST * RATE]
        mels = (log_mel(nnf.pad(part, (0, SPAN * RATE - len(part)))[None]) for part in parts)
        features = torch.cat([self.features(mel) for mel in mels])
        return features, self.linear(self.layer_norm(features, "head.0", 1e-5), "head.1")
