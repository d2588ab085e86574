"""A built wheel, installed into an empty environment, generates and lists recipes far from the checkout."""

import os
import site
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built by hatchling of this environment."""
    folder = tmp_path_factory.mktemp("wheel")
    words = ["-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=300, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def program(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``audioldm`` of an environment that holds only this wheel and borrows all other packages."""
    home = tmp_path_factory.mktemp("empty") / "venv"
    venv.create(home, with_pip=False)
    library = home / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    # Python reads no .pth in a folder that a .pth added: the editable install of this checkout stays out.
    (library / "borrowed.pth").write_text("\n".join(site.getsitepackages()))
    words = [
        "-m",
        "pip",
        "--python",
        str(home / "bin" / "python"),
        "install",
        "--no-deps",
        "--no-index",
        str(wheel),
    ]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return home / "bin" / "audioldm"


def run(program: Path, *words: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run(
        [program, *map(str, words)], capture_output=True, text=True, timeout=300, cwd=cwd, env=environment
    )


def test_wheel_carries_configuration_recipes_weights_and_licence(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    for source, part in (("conf", "_conf"), ("recipes", "_recipes"), ("data/manifests", "_manifests")):
        carried = {
            name.removeprefix(f"audioldm/{part}/") for name in names if name.startswith(f"audioldm/{part}/")
        }
        kept = {
            path.relative_to(ROOT / source).as_posix()
            for path in (ROOT / source).rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }
        assert carried == kept
    embedded = {
        name.removeprefix("audioldm/_embedded/") for name in names if name.startswith("audioldm/_embedded/")
    }
    assert {"model_index.json", "audioldm.json"} <= embedded
    assert any(name.startswith("unet/") and name.endswith(".safetensors") for name in embedded)
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not [
        name for name in names if name.startswith(("tests/", "runs/", "out/")) or "__pycache__" in name
    ]


def test_wheel_carries_the_listening_page(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    page = ROOT / "audioldm" / "listening" / "page"
    assert page.is_dir()
    assert {path.relative_to(ROOT).as_posix() for path in page.iterdir()} <= names


def test_wheel_is_within_the_limit(wheel):
    assert wheel.stat().st_size < 105e6, "104 MB of weights before they are packed, and the code"


def test_installed_wheel_is_what_runs_and_composes_its_recipes(program, tmp_path):
    code = "import audioldm.recipes as recipes; print(recipes.__file__); print(recipes.load('tiny/ldm'))"
    done = run(program.with_name("python"), "-c", code, cwd=tmp_path)
    assert done.stdout.startswith(str(program.parents[1].resolve())), done.stdout + done.stderr
    assert done.returncode == 0 and "'recipe': 'tiny/ldm'" in done.stdout and str(ROOT) not in done.stdout


def test_installed_wheel_generates_with_the_embedded_model(program, tmp_path):
    done = run(program, "generate", "a dog barking", "--steps", "2", "-o", "sounds", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    made = {path.name: path.stat().st_size for path in (tmp_path / "sounds").iterdir()}
    assert sorted(made) == [f"a_dog_barking_seed0.{kind}" for kind in ("json", "png", "wav")]
    assert made["a_dog_barking_seed0.wav"] > 10_000


def test_installed_wheel_lists_recipes(program, tmp_path):
    done = run(program, "recipes", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    names = {line.split()[0] for line in done.stdout.splitlines()}
    assert names == {
        path.relative_to(ROOT / "recipes").with_suffix("").as_posix()
        for path in (ROOT / "recipes").rglob("*.yaml")
    }


def test_installed_wheel_reads_the_list_of_opensounds2(program, tmp_path):
    code = (
        "from audioldm.cli.data import reader_of\n"
        "its = reader_of('opensounds2').__globals__\n"
        "print(its['__file__'], len(its['index'](its['tracked']())))"
    )
    done = run(program.with_name("python"), "-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    place, size = done.stdout.split()
    assert place.endswith("audioldm/_recipes/embedded/opensounds2.py") and int(size) == 6568
