"""Let people judge sounds blindly: make a test, serve its page, analyse the answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from audioldm.cli.console import say, show_text, waiting, would
from audioldm.cli.options import AsJson, Between, Command, DryRun, Force, Group, argument, group, option
from audioldm.cli.startup import later
from audioldm.errors import AudioLDMError

with later():
    import numpy as np

    from audioldm.listening import folder, prepare, report, server
    from audioldm.metrics import interval


class TestOptions(Group):
    """The fields of ``listening.prepare.Choices``."""

    method: Literal["ab", "acr-quality", "acr-relevance", "acr", "abx", "mushra"] = option(
        "ab", "ab: which of two (caption shown).  acr-quality: 1 to 5, no caption.  acr-relevance: 1 to 5, fit to the "
        "caption.  acr: both, quality first.  abx: can they be told apart.  mushra: 0 to 100 beside a reference.",
    )  # fmt: skip
    title: str = option("Listening test", "What raters read on top of the page.")
    reference: str | None = option(None, "The system that is the original; mushra needs it.", "NAME")
    per_rater: int = option(0, "Prompts each rater hears; 0 is all.", Between(0))
    training: int = option(2, "Practice trials before each part.", Between(0))
    catch: int | None = option(None, "Trials with a right answer, per part.  [default: a tenth]", Between(0))
    cut: bool = option(False, "Cut the clips of a prompt to the shortest.")
    seed: int | None = option(None, "Makes the same test again.  [default: drawn]", Between(0))


class Prepare(Force, DryRun, Command):
    """Make a test: blind names, one loudness (-23 LUFS), one length, balanced orders, training and catch trials.

    Examples:
      audioldm listen prepare old=out/old new=out/new -o listen/old_new
      audioldm listen prepare real=data/real a=out/a b=out/b --method acr --captions captions.csv -o listen/acr
      audioldm listen prepare original=real vae=out/vae --method mushra --reference original -o listen/vae
    """

    systems: list[str] = argument(..., "Clips of each; those of one name are one prompt.", "NAME=FOLDER...")
    out: Path = option(..., "The test's folder, to be made.", "-o", "TEST")
    captions: Path | None = option(None, "CSV of id,caption.  [default: those beside the clips]", "FILE")
    raters: int = option(12, "Raters you hope for: the power that is printed.", Between(1, 1000))
    test: TestOptions = TestOptions()

    def run(self) -> None:
        folders: dict[str, Path] = {}
        for word in self.systems:
            name, equals, place = word.rpartition("=")
            name = name if equals else Path(place).resolve().name
            if name in folders:
                raise AudioLDMError(f"Two systems are called {name!r}.", "Name them: NAME=FOLDER.")
            folders[name] = Path(place)
        if self.dry_run:
            if absent := [place for place in folders.values() if not place.is_dir()]:
                raise AudioLDMError(f"There is no folder {absent[0]}.", "Name a folder of clips.")
            would(f"a test of {', '.join(folders)} ({self.test.method}) would be made in {self.out}")
            return
        choices = prepare.Choices(**vars(self.test))
        with waiting(f"making {self.out}"):
            test = prepare.prepare(folders, self.out, choices, captions=self.captions, force=self.force)
        for line in described(test, self.raters):
            show_text(line)


def described(test: folder.Test, raters: int) -> Iterator[str]:
    about, prompts = test.about, test.design.per_rater or len(test.design.prompts)
    sizes = "{method}, {systems} systems x {prompts} prompts, {trials_per_rater} trials a rater"
    yield f"{test.folder}: {sizes.format(**about)} (about {about['minutes_per_rater']} min)"
    if cut := about["prompts_cut_to_one_length"]:
        yield f"{cut} prompts: clips cut to the shortest of the prompt"
    if quiet := about["clips_below_target"]:
        most = f"at most by {about['largest_headroom_db']:g} dB"
        why = "their prompt needed headroom, or they were too quiet to raise"
        yield f"{quiet} of {about['clips']} clips are quieter than -23 LUFS, {most}: {why}"
    if about["method"] == "ab":
        rng = np.random.default_rng(0)
        shares = {share: interval.power(raters, prompts, share, rng=rng) for share in (0.6, 0.7, 0.8)}
        powers = ", ".join(f"{share:.0%} in {value:.0%}" for share, value in shares.items())
        yield f"{raters} raters x {prompts} prompts find a true preference of {powers} of such tests"
    yield f"next: audioldm listen serve {test.folder}"


class Serve(Command):
    """Serve the test's page until Ctrl-C; every answer is on the disk before the rater sees the next trial.

    Examples:
      audioldm listen serve listen/old_new
      audioldm listen serve listen/old_new --host 192.168.1.20 --port 8800
    """

    test: Path = argument(..., "The folder that `prepare` made.", "TEST")
    host: str = option("127.0.0.1", "Address to listen at; others let others join by the link.")
    port: int = option(8765, "Port; 0 takes a free one.", Between(0, 65535))

    def run(self) -> None:
        page = server.Server(folder.load(self.test), host=self.host, port=self.port)
        page.failure = say
        page.start()
        print(f"open {page.url}   (Ctrl-C stops; answers go to {self.test}/responses.jsonl)", flush=True)
        if not page.local:
            print("whoever has this link can take part; the connection is not encrypted", flush=True)
        try:
            page.thread.join()
        except KeyboardInterrupt:
            print(f"\nstopped; next: audioldm listen analyse {self.test}")
        finally:
            page.stop()


class Analyse(AsJson, Command):
    """Unblind and count: screening, means with intervals, tests, strengths, agreement, plots, a page with players.

    Examples:
      audioldm listen analyse listen/old_new
      audioldm listen analyse listen/old_new --keep-all --json
    """

    test: Path = argument(..., "The folder that `prepare` made.", "TEST")
    out: Path | None = option(None, "Where to.  [default: TEST/analysis]", "-o", "DIR")
    keep_all: bool = option(False, "Exclude no rater.")
    resamples: int = option(10_000, "Bootstrap draws over raters and prompts.", Between(100, 1_000_000))
    seed: int = option(0, "Of the bootstrap.", Between(0))

    def run(self) -> None:
        with waiting("analysing"):
            test, choices = folder.load(self.test), {"resamples": self.resamples, "seed": self.seed}
            result = report.analyse(test, keep_all=self.keep_all, **choices)
            written = report.save(test, result, self.out or self.test / "analysis")
        self.show(result.summary(), f"{result.text()}written: {written}")


app = group(__doc__, (Prepare, Serve, Analyse))
