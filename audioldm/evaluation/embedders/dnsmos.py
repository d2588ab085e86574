"""DNSMOS: how good speech sounds, by a network, without a reference.   Reddy et al. (arXiv:2110.01763).   N samples."""

import torch
from torch import Tensor

from audioldm.evaluation.embedders import Embeddings, checked
from audioldm.evaluation.embedders.weights import digest, package_folder

FILES = ("dnsmos_models/sig_bak_ovr.onnx", "dnsmos_models/model_v8.onnx")


class Dnsmos:
    """Four opinion scores (1 to 5) a clip: speech, background, overall (P.835), overall (P.808).   For speech only.

    The networks come inside the package ``speechmos`` (MIT); a clip below 9.01 s is repeated, as the package does.
    """

    name, rate, dim, by_patch = "dnsmos", 16000, 4, False
    front = "speechmos: repeated to 9.01 s, mean over windows"
    columns = ("DNSMOS_SIG", "DNSMOS_BAK", "DNSMOS_OVR", "DNSMOS_P808")

    def __init__(self) -> None:
        folder = package_folder("speechmos")
        self.sha256 = digest(*(folder / name for name in FILES))

    def embed(self, wave: Tensor) -> Embeddings:
        """A 16 kHz wave (N,) to (1, 4); samples outside [-1, 1] are cut."""
        from speechmos import dnsmos

        scores = dnsmos.run(checked(wave).clamp(-1, 1).numpy(), self.rate)
        keys = ("sig_mos", "bak_mos", "ovrl_mos", "p808_mos")
        return Embeddings(torch.tensor([[float(scores[key]) for key in keys]]))
