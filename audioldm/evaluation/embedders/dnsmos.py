"""DNSMOS: how good speech sounds, by a network, without a reference.   Reddy et al. (arXiv:2110.01763).   N samples."""

import hashlib
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from audioldm.errors import AudioLDMError
from audioldm.evaluation.embedders.protocol import Embeddings

FILES = ("dnsmos_models/sig_bak_ovr.onnx", "dnsmos_models/model_v8.onnx")
KEYS = ("sig_mos", "bak_mos", "ovrl_mos", "p808_mos")


class Dnsmos:
    """Four opinion scores (1 to 5) a clip: speech, background, overall (P.835), overall (P.808).   For speech only.

    The networks come inside the package ``speechmos`` (MIT); a clip below 9.01 s is repeated, as the package does.
    """

    name, rate, dim, by_patch = "dnsmos", 16000, 4, False
    front = "speechmos: repeated to 9.01 s, mean over windows"
    columns = ("DNSMOS_SIG", "DNSMOS_BAK", "DNSMOS_OVR", "DNSMOS_P808")

    def __init__(self) -> None:
        found = find_spec("speechmos")
        if found is None or not found.submodule_search_locations:
            raise AudioLDMError(
                "DNSMOS needs the package speechmos, which is not installed.",
                'Run: pip install "audioldm[eval]"',
            )
        folder = Path(next(iter(found.submodule_search_locations)))
        digest = hashlib.sha256()
        for name in FILES:
            digest.update((folder / name).read_bytes())
        self.sha256 = digest.hexdigest()

    def listen(self, wave: Tensor) -> Embeddings:
        """A 16 kHz wave (N,) to (1, 4); samples outside [-1, 1] are cut."""
        from speechmos import dnsmos

        if not bool(wave.isfinite().all()):
            raise AudioLDMError("The wave has samples that are not finite.", "Remove the clip.", code=1)
        told = dnsmos.run(wave.clamp(-1, 1).float().numpy(), self.rate)
        return Embeddings(torch.tensor([[float(told[key]) for key in KEYS]]))
