"""The C++ kernel of ``split``: compiled at first use, kept below ~/.cache/audioldm, loaded by later processes."""

import hashlib
import os
import platform
import shutil
import subprocess
from functools import cache
from pathlib import Path

import torch

from audioldm.errors import AudioLDMError

SOURCE = Path(__file__).with_name("split.cpp")
FLAGS = ("-O3", "-march=native", "-fno-trapping-math", "-fopenmp", "-std=c++17", "-shared", "-fPIC")


def compiler() -> str | None:
    """The C++ compiler: $CXX, or g++, or clang++."""
    names = [os.environ["CXX"]] if os.environ.get("CXX") else ["g++", "clang++"]
    return next(filter(None, map(shutil.which, names)), None)


def reason_against() -> str | None:
    """Why this machine cannot run split nets, or None."""
    if platform.system() != "Linux" or not torch.cpu._is_amx_tile_supported():
        return "this processor has no matrix units for bfloat16 (Intel AMX)"
    if compiler() is None:
        return "there is no C++ compiler (g++) to build its kernel with"
    return None


@cache
def load() -> None:
    """Register ``torch.ops.audioldm_split``; builds it where that has not been done.   Raises AudioLDMError."""
    if reason := reason_against():
        raise AudioLDMError(f"Mode split cannot run here: {reason}.", "Use --mode exact or --mode fast.")
    key = hashlib.sha256(
        SOURCE.read_bytes() + f"{torch.__version__} {cpu_flags()} {FLAGS}".encode()
    ).hexdigest()[:16]
    library = cache_folder() / "kernels" / f"split-{key}.so"
    if not library.exists():
        library.parent.mkdir(parents=True, exist_ok=True)
        build(library)
    torch.ops.load_library(library)


def cache_folder() -> Path:
    """``audioldm`` below $XDG_CACHE_HOME or ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "audioldm"


def cpu_flags() -> str:
    """The processor's features as Linux lists them: a kernel built for one machine must not run on another."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line for line in lines if line.startswith("flags")), "")


def build(library: Path) -> None:
    """Compile to ``library`` in one move, so that two processes may try at once.   Raises AudioLDMError."""
    torch_root = Path(torch.__file__).parent
    includes = [torch_root / "include", torch_root / "include/torch/csrc/api/include"]
    draft = library.with_suffix(f".{os.getpid()}.tmp")
    abi = f"-D_GLIBCXX_USE_CXX11_ABI={int(torch._C._GLIBCXX_USE_CXX11_ABI)}"
    command = [
        compiler() or "g++", *FLAGS, abi,
        *(f"-I{folder}" for folder in includes), str(SOURCE),
        f"-L{torch_root / 'lib'}", "-ltorch", "-ltorch_cpu", "-lc10", "-o", str(draft),
    ]  # fmt: skip
    process = subprocess.run(command, capture_output=True, text=True)
    if process.returncode:
        last = (process.stderr.strip().splitlines() or ["no message"])[-1]
        raise AudioLDMError(
            f"The kernel of mode split could not be built: {last}", "Use --mode exact.", code=1
        )
    os.replace(draft, library)
