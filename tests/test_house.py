"""The rules of the house, each counted once: who imports whom, which words, how long, who prints.

``LIMITS`` holds ratchets: a number may fall and then is lowered here; it rises
only with a feature (the last: students, captions, priors, micro-conditioning, serving, ONNX).
"""

import ast
import io
import re
import shutil
import subprocess
import sys
import time
import tokenize
from collections import defaultdict
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "audioldm"
SOURCES = sorted(PACKAGE.rglob("*.py"))
VAGUE_FILES = ("utils", "util", "misc", "common", "helpers", "manager")
# A participle as a name says that something happened to a thing, not what the thing is.
PARTICIPLES = {"told", "found", "made", "heard", "own", "given", "chosen", "spoken"}
LIMITS = {
    "lines of the package": 26_180,
    "participles as names": 0,
    "files with one importer": 40,
    "functions over 60 lines": 0,
    "functions over complexity 15": 0,
    "functions with 8 or more arguments": 9,
    "complexity, 95th percentile": 8,
    "function lines, 95th percentile": 30,
}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def functions() -> list[tuple[str, Function]]:
    """Every function of the package with its place."""
    return [
        (f"{name_of(path)}:{node.lineno} {node.name}", node)
        for path in SOURCES
        for node in ast.walk(tree(path))
        if isinstance(node, Function)
    ]


def lines(function: Function) -> int:
    return function.end_lineno - function.lineno + 1


def complexity(function: Function) -> int:
    """Ways through a function: 1, and 1 for each branch, loop, handler, comprehension, and further side of and/or."""
    branches = (
        ast.If,
        ast.IfExp,
        ast.For,
        ast.AsyncFor,
        ast.While,
        ast.ExceptHandler,
        ast.comprehension,
        ast.match_case,
    )
    nodes = list(ast.walk(function))
    sides = sum(len(node.values) - 1 for node in nodes if isinstance(node, ast.BoolOp))
    return 1 + sides + sum(isinstance(node, branches) for node in nodes)


def arguments(function: Function) -> int:
    listed = function.args
    return len(listed.posonlyargs) + len(listed.args) + len(listed.kwonlyargs)


def percentile(values: list[int], share: float) -> int:
    return sorted(values)[int(share * len(values))]


def over(measure: object, limit: int) -> list[str]:
    """The functions whose measure exceeds the limit, greatest first."""
    pairs = sorted(((measure(node), place) for place, node in functions()), reverse=True)
    return [f"{value:4d}  {place}" for value, place in pairs if value > limit]


def within(rule: str, count: int, offenders: object = ()) -> None:
    """Assert a ratchet; a failure lists the offenders."""
    limit = LIMITS[rule]
    assert count <= limit, f"{rule}: {count}, limit {limit}\n" + "\n".join(map(str, offenders))


def test_the_package_is_within_its_size():
    sizes = {name_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES}
    within("lines of the package", sum(sizes.values()), sorted(sizes, key=sizes.get, reverse=True)[:20])


def test_no_participle_is_a_name():
    places = []
    for path in SOURCES:
        tokens = tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline)
        places += [
            f"{name_of(path)}:{token.start[0]} {token.string}"
            for token in tokens
            if token.type == tokenize.NAME and token.string in PARTICIPLES
        ]
    within("participles as names", len(places), places)


def test_few_files_have_one_importer():
    modules = {name_of(path)[:-3].replace("/", ".").removesuffix(".__init__"): path for path in SOURCES}
    importers = defaultdict(set)
    for module, path in modules.items():
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Import):
                targets = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                children = [f"{node.module}.{alias.name}" for alias in node.names]
                targets = [child if child in modules else node.module for child in children]
            else:
                continue
            for target in targets:
                importers[target].add(module)
    single = [
        f"{module} <- {importer}"
        for module in modules
        if len(importers[module] - {module}) == 1
        for importer in importers[module] - {module}
    ]
    within("files with one importer", len(single), single)


def test_functions_are_short():
    long = over(lines, 60)
    within("functions over 60 lines", len(long), long)
    tail = percentile([lines(node) for _, node in functions()], 0.95)
    within("function lines, 95th percentile", tail, over(lines, 30))


def test_functions_are_simple():
    tangled = over(complexity, 15)
    within("functions over complexity 15", len(tangled), tangled)
    tail = percentile([complexity(node) for _, node in functions()], 0.95)
    within("complexity, 95th percentile", tail, over(complexity, 8))


def test_functions_take_few_arguments():
    # a Triton kernel's arguments are addresses, strides and sizes: there is nothing to gather them in
    wide = [line for line in over(arguments, 7) if "nets/kernels.py" not in line]
    within("functions with 8 or more arguments", len(wide), wide)


def test_only_the_command_line_prints():
    places = [
        f"{name_of(path)}:{node.lineno}"
        for path in SOURCES
        if path.parent.name != "cli"
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert places == []


def test_no_exception_is_swallowed():
    places = [
        f"{name_of(path)}:{node.lineno}"
        for path in SOURCES
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or all(isinstance(line, ast.Pass) for line in node.body))
    ]
    assert places == []


def test_every_file_has_a_name_that_says_what_it_holds():
    assert [name_of(path) for path in SOURCES if path.stem in VAGUE_FILES] == []


def test_the_readme_is_short():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    wide = [f"{number}: {len(line)}" for number, line in enumerate(text.splitlines(), 1) if len(line) > 140]
    assert wide == [], "lines over 140 characters"
    assert len(text.split()) <= 900


def test_links_between_pages_lead_somewhere():
    broken = []
    for page in [
        ROOT / "README.md",
        *sorted((ROOT / "docs").glob("*.md")),
        *sorted(ROOT.glob("*/README.md")),
    ]:
        for target in re.findall(
            r"\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"", page.read_text(encoding="utf-8")
        ):
            target = next(filter(None, target)).split("#")[0]
            if target and "://" not in target and not (page.parent / target).exists():
                broken.append(f"{name_of(page)}: {target}")
    assert broken == []


def test_blocks_of_other_commands_say_why_no_test_runs_them():
    """tests/cli/test_examples.py takes the ``audioldm`` commands of every page."""
    silent = []
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        text = page.read_text(encoding="utf-8")
        for mark, block in re.findall(r"(<!-- not run: .+? -->\n)?```bash\n(.*?)```", text, re.S):
            others = [line for line in block.splitlines() if line and not line.startswith("audioldm ")]
            silent += [f"{name_of(page)}: {line}" for line in others if not mark]
    assert silent == []


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("lint-imports")
    return subprocess.run([program, "--no-cache"], cwd=folder, capture_output=True, text=True, timeout=300)


def test_import_contracts_hold():
    done = lint_imports(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


PLANTED = {
    "diffusion/noise.py": ("import diffusers", "audioldm.diffusion.noise -> diffusers"),
    "diffusion/samplers.py": ("from audioldm.nets import vae", "audioldm.diffusion -> audioldm.nets"),
    "components.py": ("import audioldm.convert.hub", "audioldm.components -> audioldm.convert"),
    "engines.py": ("import audioldm.components", "audioldm.engines -> audioldm.components"),
    "convert/hub.py": ("import audioldm.pipeline.audioldm", "audioldm.convert -> audioldm.pipeline"),
    "evaluation/html.py": ("import audioldm.listening.study", "audioldm.evaluation -> audioldm.listening"),
    "pipeline/run.py": (
        "import audioldm.pipeline.audioldm",
        "audioldm.pipeline.run -> audioldm.pipeline.audioldm",
    ),
    "pipeline/guidance.py": (
        "import audioldm.pipeline.run",
        "audioldm.pipeline.guidance -> audioldm.pipeline.run",
    ),
    "nets/folder.py": ("import audioldm.nets.clap", "audioldm.nets.folder -> audioldm.nets.clap"),
    "adapters/files.py": ("import lightning", "audioldm.adapters.files -> lightning"),
    "listening/study.py": ("import gradio", "audioldm.listening.study -> gradio"),
    "convert/unet.py": ("import omegaconf", "audioldm.convert.unet -> omegaconf"),
}
"""In which file which import is planted, and what the contracts say of it."""


def test_import_contracts_catch_every_planted_violation(tmp_path):
    shutil.copytree(PACKAGE, tmp_path / "audioldm", ignore=shutil.ignore_patterns("_embedded", "__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for path, (line, _) in PLANTED.items():
        with (tmp_path / "audioldm" / path).open("a") as file:
            file.write(f"\n{line}\n")
    done = lint_imports(tmp_path)
    assert done.returncode != 0
    report = done.stdout.replace(" is not allowed to import ", " -> ")
    assert [path for path, (_, message) in PLANTED.items() if message not in report] == []


def test_importing_the_package_is_instant(python):
    begin = time.perf_counter()
    done = python(
        "import sys, audioldm; print([m for m in ('torch', 'numpy', 'diffusers') if m in sys.modules])"
    )
    assert time.perf_counter() - begin < 2, "20 ms on an idle machine"
    assert done.stdout == "[]\n", done.stderr
