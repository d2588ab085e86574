"""``audioldm recipes``: what can be trained."""

from pathlib import Path

import audioldm
from audioldm.cli.options import Command, argument, option
from audioldm.errors import AudioLDMError

LEADING = "# @package"


class Recipes(Command):
    """List the training recipes, or show one.

    \b
    Examples:
      audioldm recipes
      audioldm recipes tiny/ldm
      audioldm recipes tiny/ldm --full
    """

    name: str | None = argument(None, "Recipe to show, for example tiny/ldm.")
    full: bool = option(False, "Print it composed, with every default in place.")

    def run(self) -> None:
        known, name = find_recipes(recipes_dir()), self.name
        if name is None:
            width = max(map(len, known), default=0)
            for recipe, path in known.items():
                print(f"{recipe:<{width}}  {summary(path)}")
            return
        if name not in known:
            raise AudioLDMError(f"recipe={name!r} is unknown.", f"Known: {', '.join(known)}.")
        print(composed(name) if self.full else known[name].read_text(encoding="utf-8"), end="")


def recipes_dir() -> Path:
    """The checkout's ``recipes/``, else the copy inside the installed package; needs no training extra."""
    package = Path(audioldm.__file__).parent
    checkout = (package.parent / "conf" / "train.yaml").is_file()
    return package.parent / "recipes" if checkout else package / "_recipes"


def find_recipes(folder: Path) -> dict[str, Path]:
    """Name (path without suffix) to file, sorted."""
    return {
        path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.rglob("*.yaml"))
    }


def summary(path: Path) -> str:
    """The first comment line after the ``@package`` line."""
    comments = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    return next((line.lstrip("# ").strip() for line in comments if not line.startswith(LEADING)), "")


def composed(name: str) -> str:
    """The whole configuration of ``name`` as YAML."""
    try:
        from omegaconf import OmegaConf

        from audioldm.recipes import load
    except ModuleNotFoundError as error:
        raise AudioLDMError(f"--full needs {error.name}.", 'Run: pip install "audioldm[train]".') from error
    return OmegaConf.to_yaml(load(name))
