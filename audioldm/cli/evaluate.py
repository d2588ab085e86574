"""Measure a model.

\b
Examples:
  audioldm evaluate GENERATED REFERENCE             the same as audioldm evaluate score
  audioldm evaluate --model MODEL --manifest data/raw/esc10.jsonl
  audioldm evaluate prompts FILE.tsv -m MODEL
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from typer.core import TyperGroup

from audioldm.cli.checks import check_free
from audioldm.cli.console import say, show_json, show_text, waiting, would
from audioldm.cli.options import AsJson, Between, Command, Force, argument, group, option
from audioldm.cli.options.groups import ModelOptions
from audioldm.cli.score import (
    Captions,
    Choice,
    Gain,
    Generation,
    Reporting,
    Score,
    captions_option,
    split_option,
)
from audioldm.errors import AudioLDMError

if TYPE_CHECKING:
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
    out: Path = option(Path("out/prompts"), "Clips and reports go here.", "-o", "DIR")
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
        from audioldm.evaluation import prompts as judge
        from audioldm.evaluation.embedders.yamnet import YamNet
        from audioldm.pipeline.outputs import publish, versions

        yamnet = YamNet()
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
        with waiting("judging"):
            results = list(judge.evaluate_prompts(asked, source, yamnet, seeds=seeds))
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
        with waiting("judging"):
            *rows, unread = judge.evaluate_real(real, asked, self.generation.codec(pipe), yamnet)
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
        from audioldm.progress import counted

        data, pipe = LatentDataset(self.latents, seed=self.seed), self.model.load()
        count = min(self.windows, len(data))
        with waiting("bits"):
            batches = (collate_latents([data[place]]) for place in counted(range(count), "windows"))
            rows = bits(pipe, batches, times=self.times, seed=self.seed)
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
    out: Path = option(..., "The protocol (.json).", "-o", "FILE")
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
        show_text(f"{out}: {len(written.items)} clips, sha256 {written.sha256}")


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
    {"score": Score, "prompts": Prompts, "bits": Bits, "protocol": Protocol, "embedders": Embedders},
    cls=ScoreByDefault,
)
