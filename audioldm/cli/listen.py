"""``audioldm listen``: blind listening tests, from folders of clips to numbers with intervals."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from audioldm.cli.console import printable, progress
from audioldm.cli.options import grouped
from audioldm.errors import AudioLDMError

if TYPE_CHECKING:
    from audioldm.listening.folder import Test
    from audioldm.listening.prepare import Choices

app = typer.Typer(add_completion=False, rich_markup_mode=None, no_args_is_help=True)

Folder = Annotated[Path, typer.Argument(metavar="TEST", help="The folder that `prepare` made.")]


@app.callback()
def listen() -> None:
    """Let people judge sounds blindly: make a test, serve its page, analyse the answers.

    \b
    Examples:
      audioldm listen prepare old=out/old new=out/new -o listen/old_new
      audioldm listen serve listen/old_new
      audioldm listen analyse listen/old_new
    """


@dataclass(frozen=True)
class TestOptions:
    """How the test is to be."""

    method: Annotated[
        str,
        typer.Option(
            help="ab: which of two (caption shown).  acr-quality: 1 to 5, no caption.  acr-relevance: 1 to 5, fit "
            "to the caption.  acr: both, quality first.  abx: can they be told apart.  mushra: 0 to 100 beside a "
            "reference."
        ),
    ] = "ab"
    title: Annotated[str, typer.Option(help="What raters read on top of the page.")] = "Listening test"
    reference: Annotated[
        str | None, typer.Option(metavar="NAME", help="The system that is the original; mushra needs it.")
    ] = None
    anchor: Annotated[
        list[str],
        typer.Option(help="mushra: anchor3500, anchor1750, or none; may be repeated.  [default: anchor3500]"),
    ] = field(default_factory=list)
    per_rater: Annotated[int, typer.Option(help="Prompts each rater hears; 0 is all.")] = 0
    training: Annotated[int, typer.Option(help="Practice trials before each part.")] = 2
    catch: Annotated[
        int | None, typer.Option(help="Trials with a right answer, per part.  [default: a tenth, 2 or more]")
    ] = None
    repeats: Annotated[int | None, typer.Option(help="Trials asked twice, per part.  [default: a tenth]")] = (
        None
    )
    cut: Annotated[bool, typer.Option("--cut", help="Cut the clips of a prompt to the shortest.")] = False
    common: Annotated[bool, typer.Option("--common", help="Leave out prompts that a system lacks.")] = False
    seed: Annotated[int | None, typer.Option(help="Makes the same test again.  [default: drawn]")] = None

    def choices(self) -> "Choices":
        """As ``listening.prepare`` takes them."""
        from audioldm.listening.prepare import Choices

        options = dict(vars(self))
        anchors = tuple(options.pop("anchor") or ("anchor3500",))
        return Choices(**options, anchors=() if anchors == ("none",) else anchors)


@app.command()
@grouped
def prepare(
    systems: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME=FOLDER", help="Each system's clips; clips of one file name are one prompt."
        ),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="TEST", help="The test's folder, to be made.")],
    captions: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="CSV with id,caption, or a manifest.  [default: the JSON beside each clip]"
        ),
    ] = None,
    raters: Annotated[int, typer.Option(help="Raters you hope for: the power that is printed.")] = 12,
    force: Annotated[bool, typer.Option("--force", help="Make a test without answers anew.")] = False,
    *,
    test: TestOptions,
) -> None:
    """Make a test: blind names, one loudness (-23 LUFS), one length, balanced orders, training and catch trials.

    \b
    Examples:
      audioldm listen prepare old=out/old new=out/new -o listen/old_new
      audioldm listen prepare real=data/real a=out/a b=out/b --method acr --captions captions.csv -o listen/acr
      audioldm listen prepare original=real vae=out/vae --method mushra --reference original -o listen/vae
    """
    folders = name_systems(systems)
    if not 1 <= raters <= 1000:
        raise AudioLDMError(f"raters={raters} is not a number of people.", "Use 1 to 1000.")
    from audioldm.listening.prepare import prepare as make

    with progress(None, "prompts") as advance:
        prepared = make(
            folders, out, test.choices(), captions=captions, force=force, progress=lambda *_: advance()
        )
    for line in described(prepared, raters):
        print(line)


def name_systems(words: list[str]) -> dict[str, Path]:
    """``name=folder`` or ``folder`` (its own name) to name and folder."""
    systems: dict[str, Path] = {}
    for word in words:
        name, equals, folder = word.partition("=")
        path = Path(folder if equals else word)
        name = name if equals else path.resolve().name
        if name in systems:
            raise AudioLDMError(f"Two systems are called {name!r}.", "Name them: NAME=FOLDER.")
        systems[name] = path
    return systems


def described(test: "Test", raters: int) -> Iterator[str]:
    """The test, what one should know of it, and what it can find out."""
    import numpy as np

    from audioldm.metrics.crossed import power

    about, design = test.about, test.design
    yield (
        f"{test.folder}: {about['method']}, {about['systems']} systems x {about['prompts']} prompts, "
        f"{about['trials_per_rater']} trials a rater (about {about['minutes_per_rater']} min)"
    )
    if about["prompts_cut_to_one_length"]:
        yield f"{about['prompts_cut_to_one_length']} prompts: clips cut to the shortest of the prompt"
    if about["clips_below_target"]:
        yield (
            f"{about['clips_below_target']} of {about['clips']} clips are quieter than -23 LUFS, at most by "
            f"{about['largest_headroom_db']:g} dB: their prompt needed headroom, or they were too quiet to raise"
        )
    if about["method"] == "ab":
        prompts = design.per_rater or len(design.prompts)
        rng = np.random.default_rng(0)
        shares = {share: power(raters, prompts, share, rng=rng) for share in (0.6, 0.7, 0.8)}
        powers = ", ".join(f"{share:.0%} in {value:.0%}" for share, value in shares.items())
        yield f"{raters} raters x {prompts} prompts find a true preference of {powers} of such tests"
    yield f"next: audioldm listen serve {test.folder}"


@app.command()
def serve(
    test: Folder,
    host: Annotated[
        str,
        typer.Option(help="Address to listen at; any but this machine's own lets others join by the link."),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 takes a free one.")] = 8765,
) -> None:
    """Serve the test's page until Ctrl-C; every answer is on the disk before the rater sees the next trial.

    \b
    Examples:
      audioldm listen serve listen/old_new
      audioldm listen serve listen/old_new --host 192.168.1.20 --port 8800
    """
    if not 0 <= port <= 65535:
        raise AudioLDMError(f"port={port} is not a port.", "Use 0 to 65535.")
    import sys

    from audioldm.listening.folder import load
    from audioldm.listening.server import Server

    server = Server(load(test), host=host, port=port)
    server.failure = lambda message: print(f"audioldm: {message}", file=sys.stderr)
    server.start()
    print(f"open {server.url}   (Ctrl-C stops; answers go to {test}/responses.jsonl)", flush=True)
    if not server.local:
        print("whoever has this link can take part; the connection is not encrypted", flush=True)
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        print(f"\nstopped; next: audioldm listen analyse {test}")
    finally:
        server.stop()


@app.command()
def analyse(
    test: Folder,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="DIR", help="Where to.  [default: TEST/analysis]")
    ] = None,
    keep_all: Annotated[bool, typer.Option("--keep-all", help="Exclude no rater.")] = False,
    resamples: Annotated[int, typer.Option(help="Bootstrap draws over raters and prompts.")] = 10_000,
    seed: Annotated[int, typer.Option(help="Of the bootstrap.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Unblind and count: screening, means with intervals, tests, strengths, agreement, plots, a page with players.

    \b
    Examples:
      audioldm listen analyse listen/old_new
      audioldm listen analyse listen/old_new --keep-all --json
    """
    if not 100 <= resamples <= 1_000_000:
        raise AudioLDMError(f"resamples={resamples} is not enough, or too many.", "Use 100 to 1000000.")
    from audioldm.listening.folder import load
    from audioldm.listening.report import analyse as work
    from audioldm.listening.report import save

    loaded = load(test)
    result = work(loaded, keep_all=keep_all, resamples=resamples, seed=seed)
    written = save(loaded, result, out or test / "analysis")
    if as_json:
        print(json.dumps(result.summary(), indent=1, ensure_ascii=False))
        return
    print("\n".join(map(printable, result.text().split("\n"))), end="")
    print(f"written: {written}")
