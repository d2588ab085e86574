"""``audioldm evaluate``: how good is a model, in numbers."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from audioldm.cli.checks import check_parts
from audioldm.cli.console import progress
from audioldm.cli.options import Between, grouped
from audioldm.cli.options.model import ModelOptions
from audioldm.cli.options.sampling import Sampling
from audioldm.errors import AudioLDMError

if TYPE_CHECKING:
    from torch import Tensor

    from audioldm.datasets.manifest import Row
    from audioldm.evaluation.generation import Codec, GeneratedClips
    from audioldm.pipeline.audioldm import AudioLDM


class ScoreByDefault(TyperGroup):
    """``audioldm evaluate GENERATED REFERENCE`` is ``audioldm evaluate score GENERATED REFERENCE``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put ``score`` before what is neither a command nor a call for help."""
        if args and args[0] not in self.commands and args[0] not in ("-h", "--help"):
            args = ["score", *args]
        return super().parse_args(ctx, args)


evaluate = typer.Typer(cls=ScoreByDefault, add_completion=False, rich_markup_mode=None, no_args_is_help=True)
Out = Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="Clips and reports go here.")]
Force = Annotated[bool, typer.Option("--force", help="Overwrite results that exist.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
Seeds = Annotated[int, typer.Option(help="Clips of each prompt, with seeds 0, 1, ..."), Between(1, 100_000)]


@dataclass(frozen=True)
class Generation:
    """The model that is measured, and how it makes its clips."""

    model: ModelOptions
    sampling: Sampling
    guidance: Annotated[
        float | None, typer.Option(help="Guidance scale.  [default: the model's]"), Between(0)
    ] = None
    batch_size: Annotated[
        int | None, typer.Option(help="Clips made at once.  [default: 1 on a CPU, else 16]"), Between(1, 4096)
    ] = None

    def settings(self) -> dict[str, Any]:
        """What is not left to the model, by the pipeline's names."""
        guidance = {} if self.guidance is None else {"guidance": self.guidance}
        return {**self.sampling.settings(), **guidance}

    def load(self) -> "AudioLDM":
        """The model, without other libraries' bars."""
        from transformers.utils import logging

        logging.disable_progress_bar()
        check_parts(sampler=self.sampling.sampler, grid=self.sampling.grid, device=self.model.device)
        return self.model.load()

    def about(self, pipe: "AudioLDM") -> dict[str, Any]:
        """The model and its settings, for a report."""
        settings = {**vars(pipe.defaults), **self.settings(), "dtype": str(pipe.dtype)}
        return {"model": {"name": pipe.name, "sha256": pipe.hashes}, "settings": settings}

    def codec(self, pipe: "AudioLDM") -> "Codec":
        """The model's VAE and vocoder, for clips of the length that is asked for."""
        from audioldm.evaluation.generation import Codec

        return Codec(pipe, float(self.settings().get("seconds") or pipe.defaults.seconds))

    def clips(self, pipe: "AudioLDM", out: Path) -> "GeneratedClips":
        """The model's clips, kept in ``out``/clips."""
        from audioldm.evaluation.generation import GeneratedClips

        return GeneratedClips(pipe, out / "clips", self.settings(), batch_size=self.batch_size)


@dataclass(frozen=True)
class Reporting:
    """What is printed, and what may be overwritten."""

    as_json: Json = False
    force: Force = False

    def check_free(self, *paths: Path) -> None:
        """Refuse to write over results."""
        there = [path for path in paths if path.exists()]
        if there and not self.force:
            raise AudioLDMError(
                f"{there[0]} exists ({len(there)} such files).", "Use another place, or --force."
            )


@evaluate.callback()
def group() -> None:
    """Measure a model.

    \b
    Examples:
      audioldm evaluate GENERATED REFERENCE             the same as audioldm evaluate score
      audioldm evaluate --model MODEL --manifest data/raw/esc10.jsonl
      audioldm evaluate prompts FILE.tsv -m MODEL
      audioldm evaluate esc10 --manifest data/raw/esc10.jsonl -m MODEL
    """


@evaluate.command()
@grouped
def esc10(
    manifest: Annotated[Path, typer.Option(metavar="JSONL", help="ESC-10's manifest, with folds 1 to 4.")],
    folder: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Measure clips that exist, in DIR/dog_bark/*.wav and so on."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="DIR", help="Keep clips and reports here.")
    ] = None,
    sheet: Annotated[
        Path | None, typer.Option(metavar="PNG", help="Draw a real and a generated log-mel of each class.")
    ] = None,
    seeds: Seeds = 20,
    *,
    generation: Generation,
    reporting: Reporting,
) -> None:
    """Ask for each of ESC-10's ten classes; count how often a classifier of real sounds recognises it.

    The classifier is linear, on YAMNet's embeddings, trained on ESC-10's folds 1 to 3. Its accuracy on real
    sounds of fold 4 is printed beside the share of generated sounds that it recognises.

    \b
    Examples:
      audioldm evaluate esc10 --manifest data/raw/esc10.jsonl -m MODEL
      audioldm evaluate esc10 --manifest data/raw/esc10.jsonl -m MODEL --seeds 5 -o out/esc10
      audioldm evaluate esc10 --manifest data/raw/esc10.jsonl --folder out/esc10 --sheet out/esc10.png
    """
    generation.model.check()
    if folder is not None and generation.model.model is not None:
        raise AudioLDMError("--folder and --model were both given.", "Give the one to measure.")
    if folder is not None and not folder.is_dir():
        raise AudioLDMError(f"There is no folder {folder}.", "Give --folder a folder of clips.")
    if sheet is not None and sheet.suffix.lower() != ".png":
        raise AudioLDMError(f"sheet={sheet} is not a PNG.", "Let its name end in .png.")
    reports = [] if out is None else [out / "report.json", out / "report.md"]
    stale = [] if out is None or folder is not None else sorted(out.glob("*/[0-9]*.wav"))
    reporting.check_free(*([sheet] if sheet else []), *reports, *stale)
    from audioldm.datasets import manifest as manifests
    from audioldm.datasets.decode import encode
    from audioldm.evaluation import recognition
    from audioldm.evaluation.embedders.yamnet import RATE, YamNet
    from audioldm.pipeline.outputs import publish

    rows = manifests.read(manifest)
    recognition.check(rows)
    with progress(len(rows), "real clips") as step:
        classifier = recognition.Esc10Classifier.train(rows, YamNet(), progress=lambda *_: step())
    first: dict[str, Tensor] = {}
    if folder is None:
        pipe = generation.load()
        settings: dict[str, Any] = {**vars(pipe.defaults), **generation.settings(), "seeds": seeds}
        settings |= {"model": pipe.name, "sha256": pipe.hashes, "dtype": str(pipe.dtype)}
        clips = esc10_clips(pipe, generation, seeds)
    else:
        clips, settings = recognition.from_folder(folder), {"folder": str(folder)}
    with progress(seeds * len(recognition.PROMPTS), "generated clips") as step:

        def on_clip(label: str, name: str, wave: "Tensor") -> None:
            first.setdefault(label, wave)
            if out is not None and folder is None:
                encode(recognition.folder_of(out, label) / f"{name}.wav", wave, RATE)
            step()

        report = recognition.recognise(classifier, clips, on_clip=on_clip, settings=settings)
    text = json.dumps(report.as_dict(), indent=1, ensure_ascii=False) + "\n"
    publish(dict(zip(reports, (text, report.markdown()), strict=False)))
    if sheet is not None:
        publish({sheet: draw_sheet(rows, first)})
    print(text if reporting.as_json else report.markdown(), end="")


def esc10_clips(pipe: "AudioLDM", generation: Generation, seeds: int) -> Any:
    """(label, seed, 16 kHz wave) of every ESC-10 prompt with every seed."""
    from audioldm.datasets.decode import resample
    from audioldm.evaluation.embedders.yamnet import RATE
    from audioldm.evaluation.recognition import PROMPTS

    for label, prompt in PROMPTS.items():
        waves = pipe(
            [prompt] * seeds,
            seeds=range(seeds),
            batch_size=generation.batch_size or 1,
            **generation.settings(),
        )
        for seed, wave in enumerate(resample(waves.float().cpu(), pipe.spec.rate, RATE)):
            yield label, f"{seed:04d}", wave


def draw_sheet(rows: "list[Row]", generated: "dict[str, Tensor]") -> bytes:
    """A PNG, one row a class: the log-mel of a real clip of fold 4 beside that of the first generated one."""
    from audioldm.evaluation.display import log_mels
    from audioldm.evaluation.embedders.yamnet import load_row
    from audioldm.evaluation.recognition import PROMPTS, TEST_FOLD
    from audioldm.spec import SPECS

    spec = SPECS["16k_64"]
    table = {}
    for label, prompt in PROMPTS.items():
        row = next(row for row in rows if row.fold == TEST_FOLD and label in row.labels)
        table[prompt] = {"real": load_row(row, spec.rate), "generated": generated[label]}
    return log_mels(table, spec).png(dpi=90)


@evaluate.command()
@grouped
def prompts(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE.tsv",
            help="A prompt, a tab, and the AudioSet classes (or their first words) that count as right, joined by |.",
        ),
    ],
    seeds: Seeds = 8,
    limit: Annotated[int | None, typer.Option(help="Only the first so many prompts."), Between(1)] = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--clips",
            metavar="DIR",
            help="Judge clips that exist: prompt and seed from DIR/clips.jsonl or the JSON beside each clip.",
        ),
    ] = None,
    real: Annotated[
        Path | None,
        typer.Option(
            metavar="PLACE", help="Real clips (folder or manifest) for the real and the codec's row."
        ),
    ] = None,
    out: Out = Path("out/prompts"),
    *,
    generation: Generation,
    reporting: Reporting,
) -> None:
    """Ask for anything; a clip is right when one of its classes is among YAMNet's five highest, with at least .2.

    Each class counts at its mean over the clip, and Silence does not count among the five. Clips are kept by a hash of
    what made them, so an interrupted run goes on where it stopped. Writes prompts.json, prompts.md and clips.csv, a
    line a clip. With --real, real clips of such kinds are judged too, and those that are right once more after the
    model's VAE and vocoder. With --clips, a model is needed for that row alone.

    \b
    Examples:
      audioldm evaluate prompts prompts.tsv
      audioldm evaluate prompts prompts.tsv -m MODEL --seeds 4 --guidance 4 --real data/raw/mine.jsonl -o out/mine
      audioldm evaluate prompts prompts.tsv --clips out/elsewhere
    """
    generation.model.check()
    if folder is not None and generation.model.model is not None and real is None:
        raise AudioLDMError("--clips and --model were both given.", "Give the one to judge.")
    reports = [out / name for name in ("prompts.json", "prompts.md", "clips.csv")]
    reporting.check_free(*reports)
    import torch

    from audioldm.evaluation import prompts as judge
    from audioldm.evaluation.embedders.yamnet import YamNet
    from audioldm.pipeline.outputs import publish, versions

    yamnet = YamNet(threads=torch.get_num_threads())
    asked, findings = judge.read_prompts(file, yamnet.class_names)
    asked = asked[:limit]
    real_clips = clips_of(real) if real else []
    embedder = {"name": yamnet.name, "sha256": yamnet.sha256}
    about: dict[str, Any] = {"list": str(file), "seeds": seeds, "embedder": embedder, "versions": versions()}
    pipe = generation.load() if folder is None or real_clips else None
    about |= generation.about(pipe) if pipe else {}
    source: judge.ClipSource
    if folder is not None:
        about["clips"] = str(folder)
        source = existing = judge.ClipFolder.read(folder)
        findings += existing.findings + existing.others(asked)
    elif pipe is not None:
        source = judge.generated(generation.clips(pipe, out))
    with progress(seeds * len(asked), "clips") as step:
        results = list(judge.evaluate_prompts(asked, source, yamnet, seeds=seeds, step=step))
    findings += [f"{result.name}: {result.error}" for result in results if result.error]
    rows: list[Any] = []
    if pipe is not None and real_clips:
        with progress(len(real_clips), "real clips") as step:
            *rows, unread = judge.evaluate_real(real_clips, asked, generation.codec(pipe), yamnet, step)
        findings += unread
    report = judge.Report(results, rows, about, findings)
    contents = (report.json(), report.markdown(), report.csv())
    publish(dict(zip(reports, contents, strict=True)))
    for finding in findings:
        print(f"audioldm: {finding}", file=sys.stderr)
    print(report.json() if reporting.as_json else report.markdown(), end="")
    if not any(result.clips for result in results):
        raise AudioLDMError("No prompt gave a clip.", f"See {reports[0]}.", code=1)


def clips_of(place: Path) -> Any:
    """The clips of a folder, or of all rows of a manifest."""
    from audioldm.datasets import manifest
    from audioldm.evaluation import clips

    return clips.from_rows(manifest.read(place)) if place.suffix == ".jsonl" else clips.from_folder(place)


@evaluate.command()
def protocol(
    source: Annotated[Path, typer.Argument(help="A manifest (.jsonl), or AudioCaps' test.csv.")],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="FILE", help="The protocol (.json).")],
    split: Annotated[str, typer.Option(help="Split of the manifest; any takes all rows.")] = "test",
    captions: Annotated[
        str, typer.Option(metavar="first|all|hash", help="Which captions of a clip.")
    ] = "first",
    seconds: Annotated[float | None, typer.Option(help="Length of every clip.  [default: open]")] = None,
    gain: Annotated[str, typer.Option(metavar="peak|none|lufs", help="Level of every clip.")] = "peak",
    force: Force = False,
) -> None:
    """Write a protocol file: hashes of clips and captions, with a hash of the list, and no caption itself.

    The file's name is the protocol's name.

    \b
    Examples:
      audioldm evaluate protocol data/raw/esc10.jsonl -o data/protocols/esc10-fold4.json --seconds 5
      audioldm evaluate protocol test.csv -o data/protocols/audiocaps-test.json
    """
    from audioldm.datasets import manifest
    from audioldm.evaluation import protocol as protocols

    Reporting(force=force).check_free(out)
    if source.suffix == ".csv":
        written = protocols.of_audiocaps(source, name=out.stem)
    else:
        rows = manifest.read(source, split=None if split == "any" else split)
        about = f"{source.name}, split {split}, caption {captions}"
        written = protocols.of_rows(
            rows, protocols.Protocol(out.stem, about, captions, seconds, gain, items=())
        )
    written.write(out)
    print(f"{out}: {len(written.items)} clips, sha256 {written.sha256}")


@evaluate.command()
def embedders(as_json: Json = False) -> None:
    """List the embedders: ready with the hash of their weights, or what to get and where to put it.

    \b
    Examples:
      audioldm evaluate embedders
      audioldm evaluate embedders --json
    """
    from audioldm.evaluation.embedders import EMBEDDERS, load_embedder

    states: dict[str, dict[str, Any]] = {}
    for name in EMBEDDERS:
        try:
            embedder = load_embedder(name)
        except AudioLDMError as error:
            states[name] = {"ready": False, "needs": str(error)}
        else:
            states[name] = {
                "ready": True, "sha256": embedder.sha256, "rate": embedder.rate, "dim": embedder.dim
            }  # fmt: skip
    if as_json:
        print(json.dumps(states, indent=1))
        return
    for name, state in states.items():
        shown = f"ready, sha256 {state['sha256']}" if state["ready"] else state["needs"]
        print(f"{name:<16} {shown}")
