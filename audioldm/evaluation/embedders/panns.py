"""PANNs' Cnn14, behind FD, KL and IS of the papers: arXiv:1912.10211, weights CC-BY-4.0.   N samples, T frames."""

from torch import Tensor
from torch.nn import functional as nnf
from torchaudio.transforms import MelSpectrogram

from audioldm.evaluation.embedders import Network

RECORD = "https://zenodo.org/records/3987831/files"


def log_mel(wave: Tensor, rate: int, fmax: float) -> Tensor:
    """dB (64, T) of a wave (N,): windows of 32 ms every 10 ms, edges reflected, 64 slaney bands from 50 Hz."""
    mel = MelSpectrogram(
        rate, rate // 1000 * 32, hop_length=rate // 100, f_min=50.0, f_max=fmax, n_mels=64, norm="slaney",
        mel_scale="slaney",
    )  # fmt: skip
    return 10 * mel(wave).clamp(min=1e-10).log10()


class Panns(Network):
    """The embedder, one vector a clip; ``fmax`` is its highest frequency in Hz."""

    name, rate, fmax, dim = "panns-cnn14-16k", 16000, 8000.0, 2048
    front = "cnn14/1: one vector a clip, n_fft 512, hop 160"
    url = f"{RECORD}/Cnn14_16k_mAP=0.438.pth"
    digest = "e2ee543a27919542c2ea03eabaa70b24dcd4e6c8e05621de6b67a94e4c5058e6"

    def forward(self, wave: Tensor) -> tuple[Tensor, Tensor]:
        """(N,) to an embedding (1, 2048) and logits (1, 527); zeros make a clip below 1 s that long."""
        mel = log_mel(nnf.pad(wave, (0, max(0, self.rate - len(wave)))), self.rate, self.fmax)
        x = self.norm(mel[None], "bn0", 1e-5).transpose(1, 2)[:, None]
        for i in range(1, 7):
            for j in (1, 2):
                x = self.norm(self.conv(x, f"conv_block{i}.conv{j}"), f"conv_block{i}.bn{j}", 1e-5).relu()
            x = nnf.avg_pool2d(x, 2) if i < 6 else x
        x = x.mean(dim=3)
        embedding = self.linear(x.amax(dim=2) + x.mean(dim=2), "fc1").relu()
        return embedding, self.linear(embedding, "fc_audioset")


class Panns32(Panns):
    """The same at 32 kHz."""

    name, rate, fmax = "panns-cnn14-32k", 32000, 14000.0
    front = "cnn14/1: one vector a clip, n_fft 1024, hop 320"
    url = f"{RECORD}/Cnn14_mAP=0.431.pth"
    digest = "0dc499e40e9761ef5ea061ffc77697697f277f6a960894903df3ada000e34b31"
