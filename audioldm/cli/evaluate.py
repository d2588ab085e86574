"""Measure a model.

\b
Examples:
  audioldm evaluate GENERATED REFERENCE             the same as audioldm evaluate score
  audioldm evaluate --model MODEL --manifest data/raw/esc10.jsonl
  audioldm evaluate prompts FILE.tsv -m MODEL
  audioldm evaluate esc10 --manifest data/raw/esc10.jsonl -m MODEL
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from typer.core import TyperGroup

from audioldm.cli.checks import check_free
from audioldm.cli.console import progress, say, show_json, would
from audioldm.cli.options import AsJson, Between, Command, Force, argument, group, option, out_option
from audioldm.cli.options.groups import ModelOptions
from audioldm.cli.score import (
    Captions,
    Choice,
    Gain,
    Generation,
    Reporting,
    Score,
    captions_option,
    json_text,
    split_option,
)
from audioldm.errors import AudioLDMError

if TYPE_CHECKING:
    from torch import Tensor

    from audioldm.datasets.manifest import Row
    from audioldm.evaluation.clips import Clip
    from audioldm.pipeline.audioldm import AudioLDM


class ScoreByDefault(TyperGroup):
    """``audioldm evaluate GENERATED REFERENCE`` is ``audioldm evaluate score GENERATED REFERENCE``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put ``score`` before what is neither a command nor a call for help."""
        if args and args[0] not in self.commands and args[0] not in ("-h", "--help"):
            args = ["score", *args]
        return super().parse_args(ctx, args)


def seeds_option(default: int) -> Any:
    """How many clips of a prompt."""
    return option(default, "Clips of each prompt, with seeds 0, 1, ...", Between(1, 100_000))


class Esc10(Command):
    """Ask for each of ESC-10's ten classes; count how often a classifier of real sounds recognises it.

    The classifier is linear, on YAMNet's embeddings, trained on ESC-10's folds 1 to 3. Its accuracy on real
    sounds of fold 4 is printed beside the share of generated sounds that it recognises.

    \b
    Examples:
      audioldm evaluate esc10 --manifest data/raw/esc10.jsonl -m MODEL
      audioldm evaluate esc10 --manifest data/raw/esc10.jsonl -m MODEL --seeds 5 -o out/esc10
      audioldm evaluate esc10 --manifest data/raw/esc10.jsonl --folder out/esc10 --sheet out/esc10.png
    """

    manifest: Path = option(..., "ESC-10's manifest, with folds 1 to 4.", "JSONL")
    folder: Path | None = option(None, "Measure clips that exist, in DIR/dog_bark/*.wav and so on.", "DIR")
    out: Path | None = out_option(None, "DIR", "Keep clips and reports here.")
    sheet: Path | None = option(None, "Draw a real and a generated log-mel of each class.", "PNG")
    seeds: int = seeds_option(20)
    generation: Generation = Generation()
    reporting: Reporting = Reporting()

    def check(self) -> None:
        """Refuse two things to measure, and what is there."""
        self.generation.model.check()
        folder, out, sheet = self.folder, self.out, self.sheet
        if folder is not None and self.generation.model.model is not None:
            raise AudioLDMError("--folder and --model were both given.", "Give the one to measure.")
        if folder is not None and not folder.is_dir():
            raise AudioLDMError(f"There is no folder {folder}.", "Give --folder a folder of clips.")
        if sheet is not None and sheet.suffix.lower() != ".png":
            raise AudioLDMError(f"sheet={sheet} is not a PNG.", "Let its name end in .png.")
        stale = [] if out is None or folder is not None else sorted(out.glob("*/[0-9]*.wav"))
        reports = [] if out is None else [out / "report.json", out / "report.md"]
        check_free(*([sheet] if sheet else []), *reports, *stale, force=self.reporting.force)

    def clips(self) -> tuple[Any, dict[str, Any]]:
        """(label, seed, 16 kHz wave) of each clip, and what made them."""
        from audioldm.evaluation import recognition

        if self.folder is not None:
            return recognition.from_folder(self.folder), {"folder": str(self.folder)}
        pipe = self.generation.load()
        settings = {**vars(pipe.defaults), **self.generation.settings(), "seeds": self.seeds}
        settings |= {"model": pipe.name, "sha256": pipe.hashes, "dtype": str(pipe.dtype)}
        return self.generated(pipe), settings

    def generated(self, pipe: "AudioLDM") -> "Iterator[tuple[str, str, Tensor]]":
        """The model's clips."""
        from audioldm.datasets.decode import resample
        from audioldm.evaluation.embedders.yamnet import RATE
        from audioldm.evaluation.recognition import PROMPTS

        size, settings = self.generation.batch_size or 1, self.generation.settings()
        for label, prompt in PROMPTS.items():
            waves = pipe([prompt] * self.seeds, seeds=range(self.seeds), batch_size=size, **settings)
            for seed, wave in enumerate(resample(waves.float().cpu(), pipe.spec.rate, RATE)):
                yield label, f"{seed:04d}", wave

    def run(self) -> None:
        self.check()
        from audioldm.datasets import manifest as manifests
        from audioldm.datasets.decode import encode
        from audioldm.evaluation import recognition
        from audioldm.evaluation.embedders.yamnet import RATE, YamNet
        from audioldm.pipeline.outputs import publish

        out = self.out
        rows = manifests.read(self.manifest)
        recognition.check(rows)
        total = self.seeds * len(recognition.PROMPTS)
        if self.reporting.dry_run:
            self.generation.check()
            would(f"{total} clips would be recognised by a classifier of {len(rows)} real ones")
            return
        with progress(len(rows), "real clips") as step:
            classifier = recognition.Esc10Classifier.train(rows, YamNet(), progress=lambda *_: step())
        clips, settings = self.clips()
        first: dict[str, Tensor] = {}
        with progress(total, "generated clips") as step:

            def on_clip(label: str, name: str, wave: "Tensor") -> None:
                first.setdefault(label, wave)
                if out is not None and self.folder is None:
                    encode(recognition.folder_of(out, label) / f"{name}.wav", wave, RATE)
                step()

            report = recognition.recognise(classifier, clips, on_clip=on_clip, settings=settings)
        if out is not None:
            texts = {"report.json": json_text(report.as_dict()), "report.md": report.markdown()}
            publish({out / name: text for name, text in texts.items()})
        if self.sheet is not None:
            publish({self.sheet: draw_sheet(rows, first)})
        self.reporting.show(report.as_dict(), report.markdown())


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


class Prompts(Command):
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

    file: Path = argument(
        ...,
        "A prompt, a tab, and the AudioSet classes (or their first words) that count as right, joined by |.",
        "FILE.tsv",
    )
    seeds: int = seeds_option(8)
    limit: int | None = option(None, "Only the first so many prompts.", Between(1))
    folder: Path | None = option(
        None,
        "Judge clips that exist: prompt and seed from DIR/clips.jsonl or the JSON beside each clip.",
        "--clips",
        "DIR",
    )
    real: Path | None = option(
        None, "Real clips (folder or manifest) for the real and the codec's row.", "PLACE"
    )
    out: Path = out_option("out/prompts", "DIR", "Clips and reports go here.")
    generation: Generation = Generation()
    reporting: Reporting = Reporting()

    def check(self) -> list[Path]:
        """Refuse two things to judge, and reports that are there; returns where these go."""
        self.generation.model.check()
        if self.folder is not None and self.generation.model.model is not None and self.real is None:
            raise AudioLDMError("--clips and --model were both given.", "Give the one to judge.")
        reports = [self.out / name for name in ("prompts.json", "prompts.md", "clips.csv")]
        check_free(*reports, force=self.reporting.force)
        return reports

    def run(self) -> None:
        reports, generation, seeds = self.check(), self.generation, self.seeds
        import torch

        from audioldm.evaluation import prompts as judge
        from audioldm.evaluation.embedders.yamnet import YamNet
        from audioldm.pipeline.outputs import publish, versions

        yamnet = YamNet(threads=torch.get_num_threads())
        asked, findings = judge.read_prompts(self.file, yamnet.class_names)
        asked = asked[: self.limit]
        real = Choice(split="any").clips(self.real) if self.real else []
        existing = judge.ClipFolder.read(self.folder) if self.folder is not None else None
        if self.reporting.dry_run:
            generation.check()
            would(f"{seeds} clips of each of {len(asked)} prompts would be judged, and {len(real)} real ones")
            return
        embedder = {"name": yamnet.name, "sha256": yamnet.sha256}
        about = {"list": str(self.file), "seeds": seeds, "embedder": embedder, "versions": versions()}
        pipe = generation.load() if existing is None or real else None
        about |= generation.about(pipe) if pipe else {}
        if existing is not None:
            about["clips"] = str(self.folder)
            findings += existing.findings + existing.others(asked)
        source = existing or judge.generated(generation.clips(cast("AudioLDM", pipe), self.out))
        with progress(seeds * len(asked), "clips") as step:
            results = list(judge.evaluate_prompts(asked, source, yamnet, seeds=seeds, step=step))
        findings += [f"{result.name}: {result.error}" for result in results if result.error]
        rows, unread = self.judge_real(real, asked, pipe, yamnet)
        findings += unread
        report = judge.Report(results, rows, about, findings)
        publish(dict(zip(reports, (report.json(), report.markdown(), report.csv()), strict=True)))
        for finding in findings:
            say(finding)
        print(report.json() if self.reporting.as_json else report.markdown(), end="")
        if not any(result.clips for result in results):
            raise AudioLDMError("No prompt gave a clip.", f"See {reports[0]}.", code=1)

    def judge_real(
        self, real: "list[Clip]", asked: Any, pipe: "AudioLDM | None", yamnet: Any
    ) -> tuple[list[Any], list[str]]:
        """The rows of real clips, and what could not be read."""
        from audioldm.evaluation import prompts as judge

        if pipe is None or not real:
            return [], []
        with progress(len(real), "real clips") as step:
            *rows, unread = judge.evaluate_real(real, asked, self.generation.codec(pipe), yamnet, step)
        return rows, unread


class Bits(AsJson, Command):
    """Bits per dimension of latents: DDPM's bound with both fixed variances, and with the learned one if there is one.

    Latents are continuous, so these are bits of a density: differences mean something, single numbers do not.

    \b
    Examples:
      audioldm evaluate bits data/latents/embedded_val
      audioldm evaluate bits data/latents/embedded_val -m runs/finetune/learned_variance/model --times 256
    """

    latents: Path = argument(..., "What audioldm data encode wrote.", "FOLDER")
    windows: int = option(64, "Windows, from the first on.", Between(2))
    times: int = option(64, "Times of each; the first is always among them.", Between(2, 1000))
    seed: int = option(0, "Seed of times and noise.", Between(0, 2**62 - 1))
    model: ModelOptions = ModelOptions()

    def run(self) -> None:
        self.model.check()
        from audioldm.datasets.latents import LatentDataset, collate_latents
        from audioldm.evaluation.bits import bits

        data, pipe = LatentDataset(self.latents, seed=self.seed), self.model.load()
        count = min(self.windows, len(data))
        with progress(count, "bits") as advance:
            batches = (collate_latents([data[place]]) for place in range(count))
            rows = bits(pipe, batches, times=self.times, seed=self.seed, on_window=advance)
        fixed = rows["fixed small"]
        table = {
            name: {
                "bits": float(row.mean()),
                "against_small": float((row - fixed).mean()),
                "error": float((row - fixed).std() / count**0.5),
            }
            for name, row in rows.items()
        }
        if self.as_json:
            show_json(
                {"model": pipe.name, "windows": count, "times": self.times, "bits_per_dimension": table}
            )
            return
        print(f"{'variance':<22} {'bits/dim':>9}  {'against fixed small':>20}")
        for name, row in table.items():
            print(f"{name:<22} {row['bits']:>9.4f}  {row['against_small']:>+10.4f} +- {row['error']:.4f}")


class Protocol(Force, Command):
    """Write a protocol file: hashes of clips and captions, with a hash of the list, and no caption itself.

    The file's name is the protocol's name.

    \b
    Examples:
      audioldm evaluate protocol data/raw/esc10.jsonl -o data/protocols/esc10-fold4.json --seconds 5
      audioldm evaluate protocol test.csv -o data/protocols/audiocaps-test.json
    """

    source: Path = argument(..., "A manifest (.jsonl), or AudioCaps' test.csv.")
    out: Path = out_option(..., "FILE", "The protocol (.json).")
    split: str = split_option()
    captions: Captions = captions_option()
    seconds: float | None = option(None, "Length of every clip.  [default: open]", Between(0, above=True))
    gain: Gain = option("peak", "Level of every clip.")

    def run(self) -> None:
        from audioldm.datasets import manifest
        from audioldm.evaluation import protocol as protocols

        out, source, split = self.out, self.source, self.split
        check_free(out, force=self.force)
        if source.suffix == ".csv":
            written = protocols.of_audiocaps(source, name=out.stem)
        else:
            rows = manifest.read(source, split=None if split == "any" else split)
            about = f"{source.name}, split {split}, caption {self.captions}"
            frame = protocols.Protocol(out.stem, about, self.captions, self.seconds, self.gain, items=())
            written = protocols.of_rows(rows, frame)
        written.write(out)
        print(f"{out}: {len(written.items)} clips, sha256 {written.sha256}")


class Embedders(AsJson, Command):
    """List the embedders: ready with the hash of their weights, or what to get and where to put it.

    \b
    Examples:
      audioldm evaluate embedders
      audioldm evaluate embedders --json
    """

    def run(self) -> None:
        from audioldm.evaluation.embedders import EMBEDDERS, load_embedder

        states: dict[str, dict[str, Any]] = {}
        for name in EMBEDDERS:
            try:
                embedder = load_embedder(name)
            except AudioLDMError as error:
                states[name] = {"ready": False, "needs": str(error)}
            else:
                facts = {field: getattr(embedder, field) for field in ("sha256", "rate", "dim")}
                states[name] = {"ready": True, **facts}
        if self.as_json:
            show_json(states)
            return
        for name, state in states.items():
            print(f"{name:<16} {state.get('needs') or 'ready, sha256 ' + state['sha256']}")


app = group(
    __doc__,
    {
        "score": Score,
        "esc10": Esc10,
        "prompts": Prompts,
        "bits": Bits,
        "protocol": Protocol,
        "embedders": Embedders,
    },
    cls=ScoreByDefault,
)
