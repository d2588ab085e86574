"""The image: built, and run, where a container engine works; a Dockerfile that names what it copies everywhere."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "Dockerfile").read_text(encoding="utf-8")
ENVIRONMENT = {"STORAGE_DRIVER": "vfs", "BUILDAH_ISOLATION": "chroot", **os.environ}
ARGUMENTS = os.environ.get("AUDIOLDM_BUILD", "").split()
"""More words for the build, such as --build-arg BASE=IMAGE"""


def call(*words: object, timeout: int = 2400) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*map(str, words)], capture_output=True, text=True, timeout=timeout, env=ENVIRONMENT, cwd=ROOT
    )


def engine() -> str | None:
    """A program that builds and runs images here."""
    for name in ("docker", "podman", "buildah"):
        if shutil.which(name) and call(name, "info", timeout=60).returncode == 0:
            return name
    return None


def test_the_dockerfile_copies_what_is_there_and_pins_torch():
    for line in re.findall(r"^COPY (.+)$", TEXT, re.M):
        for name in line.split()[:-1]:
            assert (ROOT / name).exists(), name
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    for name in ("torch", "torchaudio"):
        assert re.search(rf"^{name}==(.+)$", pins, re.M)[1] == re.search(rf" {name}==(\S+)", TEXT)[1]
    assert "ARG DEVICE=cpu" in TEXT and 'ENTRYPOINT ["audioldm"]' in TEXT


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("device", ["cpu", "cuda"])  # without a GPU the second one generates on the CPU
def test_the_image_is_built_and_generates(tmp_path, device):
    program = engine()
    if program is None:
        pytest.skip("no container engine works here: docker, podman and buildah were asked")
    done = call(
        program, "build", f"--build-arg=DEVICE={device}", *ARGUMENTS, "-t", "localhost/audioldm-test", ROOT
    )
    assert done.returncode == 0, done.stderr[-3000:]
    if program == "buildah":  # it has no volumes at a run of its own
        name = call(program, "from", "--pull-never", "localhost/audioldm-test").stdout.strip()
        try:
            done = call(program, "run", name, "--", "audioldm", "generate", "rain", "-o", "/out")
            place = Path(call(program, "mount", name).stdout.strip()) / "out"
            sizes = {path.name: path.stat().st_size for path in place.iterdir()}
        finally:
            call(program, "rm", name)
    else:
        words = ["run", "--rm", "-v", f"{tmp_path}:/out", "localhost/audioldm-test"]
        done = call(program, *words, "generate", "rain", "-o", "/out")
        sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert done.returncode == 0, done.stderr
    assert sorted(sizes) == ["rain_seed0.json", "rain_seed0.png", "rain_seed0.wav"]
    assert sizes["rain_seed0.wav"] > 10_000
