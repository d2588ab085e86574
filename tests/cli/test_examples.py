"""Every command line that README, docs, recipes and help texts show: parsed, and run or marked why not."""

import io
import json
import re
import shlex
import shutil
import sys
from dataclasses import dataclass
from glob import glob
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import soundfile
import torch

from audioldm.adapters.adapter import defaults, start
from audioldm.adapters.files import write
from audioldm.adapters.words import Words
from audioldm.cli import app as commands
from audioldm.cli.app import run
from audioldm.cli.options import read_settings
from audioldm.convert.reference import open_part
from audioldm.errors import AudioLDMError
from audioldm.nets.captioner import build_captioner
from audioldm.nets.clap import clap_digest
from audioldm.nets.folder import save_component
from audioldm.nets.prior import Prior

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "recipes").rglob("*.yaml")),
]
ENDS = ("<", ">", "|", "&&", "2>", "||", ";", "\\")

NOT_RUN = {
    r"^(app|serve|mcp|listen serve)": "serves until it is stopped: tests/app, tests/serve and tests/listening drive it",
    r"^train.*(task\.model=|data\.shards|KIND|RECIPE)": "needs a model of another recipe: tests/recipes trains it",
    r"^(ema|report)": "needs a training: tests/cli/test_ema.py and tests/training make one",
    r"^adapter.*(kohya.safetensors|their)": "needs an adapter of others: tests/adapters writes such files",
    r"guidance_class": "needs a trained classifier: tests/pipeline/test_classifier_guidance.py makes one",
    r"--micro": "needs a model that knows what recordings were like: tests/training/test_tricks.py trains one",
    r"control_net|--ip-adapter runs": "needs a trained net: tests/cli/test_control_flags.py makes one",
    r"--control pitch|--mode compiled": "minutes of compiling, or another processor: tests/pipeline runs it",
    r"-m \S*(/audioldm|\.ckpt|tango)|^export (cvssp|\S*\.ckpt)": "needs the network: tests/convert reads such files",
    r"^export": "needs trained parts: tests/recipes/test_chain.py exports some",
    r"^data (prepare (?!folder my_sounds)|encode|shard|attribution)": "needs data: tests/datasets",
    r"^data .*(esc10|audiocaps|opensounds|composed|\*|latents|shards)": "needs a data set: tests/datasets run each",
    r"^evaluate (?!out/clips real/clips$)|^listen (?!prepare old)": "needs data: tests/evaluation and tests/listening",
}
"""Why an example is only parsed: a pattern of its words, and the reason."""


@dataclass(frozen=True)
class Example:
    """One command line and where it stands."""

    place: str
    line: str
    whole: bool = True
    """False for a mention in a sentence, which may leave out what the command needs"""

    @property
    def words(self) -> list[str]:
        """What follows ``audioldm``, without remarks and further commands of the line."""
        line = re.split(r"\s{3,}|\s#\s", self.line)[0] if self.whole else self.line
        words = shlex.split(line)
        words = words[words.index("audioldm") + 1 :]
        return words[: next((i for i, word in enumerate(words) if word in ENDS), len(words))]


def in_page(path: Path) -> list[Example]:
    """Lines of code blocks and of comments, and mentions between backticks."""
    place = path.relative_to(ROOT).as_posix()
    text = re.sub(r"\\\n[#\s]*", "", path.read_text(encoding="utf-8"))
    examples, block = [], False
    for line in text.splitlines():
        block ^= line.startswith("```")
        code = line.lstrip("# ") if path.suffix == ".yaml" else line.strip()
        if (block or path.suffix == ".yaml") and "docker run" not in code:
            for part in re.split(r"\s&&\s", code):
                if re.match(r"^(echo .*\| *)?audioldm [a-z]", part):
                    examples.append(Example(place, part, whole="..." not in part))
        elif not block:
            mentions = re.findall(r"`(audioldm [a-z][^`]*)`", line)
            examples += [Example(place, part, whole=False) for part in mentions]
    return examples


def leaves(group: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """Every command below ``group``, by its words, and the groups themselves."""
    matches: dict[tuple[str, ...], Any] = {path: group}
    for name in getattr(group, "commands", {}):
        matches |= leaves(group.get_command(None, name), (*path, name))
    return matches


EVERY = leaves(commands.app)


def in_help() -> list[Example]:
    """The command lines of every help text."""
    examples = []
    for words, command in EVERY.items():
        lines = [line.strip() for line in (command.help or "").splitlines()]
        place = " ".join(["audioldm", *words, "--help"])
        examples += [Example(place, line) for line in lines if re.match(r"^(echo .*\| *)?audioldm ", line)]
    return examples


EXAMPLES = [example for path in PAGES for example in in_page(path)] + in_help()
WHOLE = list({" ".join(example.words): example for example in EXAMPLES if example.whole}.values())


def test_every_page_has_examples():
    places = {example.place for example in EXAMPLES}
    assert {"README.md", "docs/adapters.md", "audioldm generate --help"} <= places
    for words, command in EVERY.items():
        assert hasattr(command, "commands") or f"audioldm {' '.join(words)} --help" in places, words


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda e: f"{e.place}: {e.line[:80]}")
def test_an_example_parses(example):
    command, rest = EVERY[()], example.words
    while hasattr(command, "commands") and rest and rest[0] in command.commands:
        command, rest = command.get_command(None, rest[0]), rest[1:]
    if command.name == "evaluate" and rest and rest[0] != "--help":
        command = command.commands["score"]  # evaluate A B is evaluate score A B
    rest = [word for word in rest if word != "--debug"]
    if hasattr(command, "commands"):
        placeholder = bool(rest) and rest[0].isupper()
        assert not rest or rest == ["--help"] or (placeholder and not example.whole), "no such command"
        return
    if "--help" in rest:
        return
    if example.whole:
        command.make_context("audioldm", list(rest)).close()
    known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    options = [word.partition("=")[0] for word in rest if re.match(r"--[a-z]", word)]
    assert not [name for name in options if name not in known]
    for before, word in pairwise(rest):
        if before == "--set":
            read_settings([word], command.settings)


def reason_not_to_run(words: list[str]) -> str:
    """Why an example is only parsed, "" where it is run."""
    return next((why for pattern, why in NOT_RUN.items() if re.search(pattern, " ".join(words))), "")


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny_model):
    """A folder with every file that the examples name."""
    folder, lines = tmp_path_factory.mktemp("examples"), "\n".join(example.line for example in EXAMPLES)
    draw = np.random.default_rng(0)
    for name in set(re.findall(r"\b\w+\.(?:wav|flac|ogg|mp3)\b", lines)):
        rate, seconds = 8000 if name == "phone.wav" else 16000, 8 if name == "sea.wav" else 5
        tone = np.sin(2 * np.pi * 330 * np.arange(seconds * rate) / rate)
        soundfile.write(folder / name, 0.2 * tone + 0.02 * draw.normal(size=tone.size), rate)
    (folder / "prompts.csv").write_text('prompt,seed,steps\nrain,1,2\n"wind, strong",2,1\n')
    for name in ("list.txt", "lines.txt"):
        (folder / name).write_text("rain\nwind\n")
    for sounds in ("my_sounds", "out/clips", "real/clips", "out/old", "out/new"):
        (folder / sounds).mkdir(parents=True)
        for number, hertz in enumerate((220, 330, 440, 550)):
            tone = 0.2 * np.sin(2 * np.pi * hertz * np.arange(4 * 16000) / 16000)
            wave = tone + 0.02 * draw.normal(size=tone.size)
            soundfile.write(folder / sounds / f"tone {number}.wav", wave, 16000)
    manifest = folder / "data/raw/mine.jsonl"
    assert run(["data", "prepare", "folder", str(folder / "my_sounds"), "-o", str(manifest)]) == 0
    shutil.copy(manifest, folder / "data/raw/opensounds.jsonl")
    for model in ("runs/my_model", "out/model", "runs/sdxl/refiner/model"):
        shutil.copytree(tiny_model, folder / model)
    clap, unet = open_part(tiny_model, "clap"), open_part(tiny_model, "unet")
    captioner = build_captioner(clap, ["a dog barking", "rain"], width=16, queries=2, layers=(1, 1))
    prior = Prior(clap.dim, 32, 2, 1, clap=clap_digest(clap))
    for net, name in ((captioner, "captioner"), (prior, "prior")):
        save_component(net.eval(), folder / "runs" / "caption" / name / "model" / name)
    lora = start(
        unet, "lora", rank=2, targets=defaults(unet, convolutions=False), generator=torch.Generator()
    )
    word = Words("<mine>", torch.randn(2, 16), {})
    for name in set(re.findall(r"[\w/]+\.safetensors", lines)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write(folder / name, word if "inversion" in name or "word" in name else lora)
    return folder


@pytest.mark.parametrize("example", WHOLE, ids=lambda e: f"{e.place}: {e.line[:80]}")
def test_an_example_runs(example, place, command, tiny_model, monkeypatch, capsys):
    words = example.words
    if why := reason_not_to_run(words):
        pytest.skip(why)
    monkeypatch.chdir(place)
    makes = words[0] in ("generate", "edit") and not {"--help", "--dry-run"} & set(words)
    if makes or words[0] == "bench":
        words = quick(words, tiny_model)
    elif words[0] == "train" and "--dry-run" not in words:
        words = [*words, "--cfg", "job"]
    elif words[0] == "caption":
        words = [file for word in words for file in sorted(glob(word)) or [word]]
        words = [*words, *(["-m", str(tiny_model)] if "--captioner" in words else []), "--force"]
    elif (
        words[0] == "generate"
        or words[:3] == ["data", "prepare", "folder"]
        or words[:2] == ["data", "listen"]
    ):
        words = [*words, "--force"]  # another example may have made these files
    elif words[:2] == ["adapter", "convert"]:
        words = [*words, "-o", str(place / "converted" / words[-1]), "--force"]
    if "--replay" in words:
        toy = ("--steps", 2, "--seconds", 0.64, "--force")
        assert command("generate", "a dog barking", "-m", tiny_model, *toy) == 0
    if (piped := re.match(r'echo "(.*)" \|', example.line)) is not None:
        monkeypatch.setattr("sys.stdin", io.StringIO(piped[1]))
    if (read := re.search(r" < (\S+)", example.line)) is not None:
        monkeypatch.setattr("sys.stdin", io.StringIO(Path(read[1]).read_text()))
    if "--stream" in words:
        monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.BytesIO()))
        code, streamed = command(*words), sys.stdout.buffer.getvalue()
        assert code == 0, capsys.readouterr().err
        assert streamed.startswith(b"RIFF") and len(streamed) > 100
        return
    code = command(*words)
    out, err = capsys.readouterr()
    assert code == 0, err
    if makes:
        (sound, *_) = [json.loads(out)[0]["audio"]] if "--json" in words else out.split()
        assert Path(sound).stat().st_size > 100


def quick(words: list[str], tiny_model: Path) -> list[str]:
    """The same command at a toy size, on the processor: click takes the last of two values."""
    words = ["cpu" if word == "cuda" else word for word in words if word not in ("--resume", "--force")]
    needs_embedded = {"--control", "--ip-adapter", "turbo", "runs/my_model", "out/model"} & set(words)
    words += [] if needs_embedded else ["-m", str(tiny_model)]
    words += ["--steps", "2"] if "cfg_plus_plus" not in " ".join(words) else []
    if words[0] in ("generate", "bench") or words[:2] == ["edit", "continue"]:
        words += ["--seconds", "0.64"]
    if words[0] == "bench":
        return [*words, "--repeat", "1"]
    if "--stream" in words:
        return words
    words += ["-n", "1"] if words[0] == "edit" and "-n" in words else []
    words += ["--rounds", "1"] if "--rounds" in words else []
    return [*words, "--force", *([] if "--replay" in words else ["--set", "figure=false"])]


def test_what_is_not_run_is_the_smaller_part_of_what_generates_and_edits():
    ours = [e for e in WHOLE if e.words[:1] in (["generate"], ["edit"], ["bench"], ["samplers"], ["doctor"])]
    skipped = [e.line for e in ours if reason_not_to_run(e.words)]
    assert len(skipped) < len(ours) / 5, skipped
    every = [" ".join(e.words) for e in WHOLE]
    assert not [pattern for pattern in NOT_RUN if not any(re.search(pattern, line) for line in every)]


@pytest.mark.parametrize("words", ["generate x --towards y", "generate x --set towards=y", "generat x"])
def test_an_unknown_option_or_key_in_an_example_is_caught(words):
    with pytest.raises((click.ClickException, AudioLDMError, AssertionError)):
        test_an_example_parses(Example("README.md", f"audioldm {words}"))
