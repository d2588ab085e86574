"""``audioldm evaluate GENERATED REFERENCE``, or with ``--model`` and ``--manifest``: all scores and the report."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from audioldm.cli.bars import quiet, stepping
from audioldm.cli.checks import check_names, check_numbers, check_parts
from audioldm.cli.judged import Choice, folders, model_run, through
from audioldm.cli.options.model import load
from audioldm.errors import AudioLDMError

if TYPE_CHECKING:
    from audioldm.evaluation.comparison import Comparison
    from audioldm.evaluation.embedders.protocol import Embedder


def score(
    generated: Annotated[Path | None, typer.Argument(help="Folder of generated clips.")] = None,
    reference: Annotated[
        Path | None, typer.Argument(help="Folder or manifest (.jsonl) of real clips.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("-m", "--model", metavar="REF", help="Generate with this model, then score.")
    ] = None,
    manifest: Annotated[
        Path | None, typer.Option(metavar="JSONL", help="Captions and real clips for --model.")
    ] = None,
    split: Annotated[str, typer.Option(help="Split of a manifest; any takes all rows.")] = "test",
    protocol: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Take exactly this list of clips and captions.")
    ] = None,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Score what there is of a protocol; n says so.")
    ] = False,
    limit: Annotated[int | None, typer.Option(help="At most so many clips, by hash.")] = None,
    also: Annotated[
        list[Path] | None,
        typer.Option(metavar="DIR", help="Clips of other seeds, same names; repeatable.  Gives mean ± sd."),
    ] = None,
    others: Annotated[
        Path | None,
        typer.Option(metavar="PLACE", help="Other real clips (folder or manifest) for the real/real floor."),
    ] = None,
    codec: Annotated[
        str | None, typer.Option(metavar="REF", help="Model whose VAE and vocoder give the round-trip row.")
    ] = None,
    unpaired: Annotated[bool, typer.Option("--unpaired", help="No pairs: leave KL and tags out.")] = False,
    captions: Annotated[
        str, typer.Option(metavar="first|all|hash", help="Which captions of a manifest's clip.")
    ] = "first",
    embedder: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME[=WEIGHTS]", help="See audioldm evaluate embedders.  [default: yamnet]"),
    ] = None,
    gain: Annotated[
        str | None,
        typer.Option(
            metavar="peak|none|lufs", help="Level of every clip.  [default: the protocol's, or peak]"
        ),
    ] = None,
    crop: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            help="Length of every clip.  [default: the protocol's, or the longest clip's]",
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(help="Runs of --model with other seeds.")] = 1,
    seconds: Annotated[
        float | None, typer.Option(help="Length that --model makes.  [default: its own]")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps.  [default: the model's]")] = None,
    guidance: Annotated[float | None, typer.Option(help="Guidance.  [default: the model's]")] = None,
    sampler: Annotated[str | None, typer.Option(help="Sampler.  [default: the model's]")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Clips made at once.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    threads: Annotated[int, typer.Option(help="CPU threads of the tagger.")] = 2,
    cache: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Embeddings.  [default: ~/.cache/audioldm/embeddings]")
    ] = None,
    out: Annotated[
        Path, typer.Option("-o", "--out", metavar="DIR", help="report.json, report.html, clips.csv go here.")
    ] = Path("out/evaluation"),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a report that exists.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Score generated clips against real ones: FD, FD∞, KAD, KL, IS, coverage, tag bridge, CLAP, with real rows beside.

    Clips are paired by file name. Captions come from the manifest, from captions.csv (id, caption) in the folder,
    or from the sidecars that audioldm generate writes. It refuses rather than guesses.

    \b
    Examples:
      audioldm evaluate out/clips real/clips
      audioldm evaluate out/clips data/raw/mine.jsonl --embedder yamnet --embedder clap=weights/clap-htsat-unfused
      audioldm evaluate --model out/mine --manifest data/raw/esc10.jsonl --seeds 3 -o out/report
      audioldm evaluate --model out/mine --manifest data/raw/esc10.jsonl --protocol data/protocols/esc10-fold4.json
    """
    from audioldm.evaluation import protocol as protocols
    from audioldm.evaluation.listened import GAINS

    check_names(device=device, dtype=dtype)
    check_numbers(n=seeds, seconds=seconds, steps=steps, guidance=guidance, seed=0, batch_size=batch_size)
    if (generated is None) == (model is None):
        raise AudioLDMError("Give a folder of generated clips, or --model.", "One of them, not both.")
    if (reference if model is None else manifest) is None:
        raise AudioLDMError(
            "There is nothing to compare with.", "Give REFERENCE, or --manifest with --model."
        )
    if protocol is not None:
        frame = protocols.read(protocol)
        crop, gain = crop or frame.seconds, gain or frame.gain
    gain = gain or "peak"
    if gain not in GAINS:
        raise AudioLDMError(f"gain={gain!r} is unknown.", f"Known: {', '.join(GAINS)}.")
    if limit is not None and limit < 2:
        raise AudioLDMError(f"limit={limit} is too few.", "Use 2 or more.")
    if not force and (out / "report.json").exists():
        raise AudioLDMError(f"{out / 'report.json'} exists.", "Use another --out, or --force.")
    check_parts(sampler=sampler, grid=None, device=device)
    choose = Choice(split, captions, protocol, allow_missing, limit)
    made_with = {"seconds": seconds, "steps": steps, "guidance": guidance, "sampler": sampler}
    judges = load_judges(embedder or ["yamnet"], threads)
    if model is None:
        assert generated is not None
        assert reference is not None
        compare, about = folders(
            generated, also or [], reference, choose, pairs=not unpaired, crop=crop, gain=gain
        )
        if codec is not None:
            pipe, length = load(codec, device=device, dtype=dtype), compare.frame.seconds or 10.0
            compare.trip = through(pipe, list(compare.real), length, out)
            about |= {"codec": pipe.name, "codec_sha256": pipe.hashes}
    else:
        assert manifest is not None
        pipe = load(model, device=device, dtype=dtype)
        settings = {name: value for name, value in made_with.items() if value is not None}
        compare, about = model_run(
            pipe, settings, manifest, choose, out, seeds=seeds, crop=crop, gain=gain, batch_size=batch_size
        )
    finish(compare, about, judges, others=others, cache=cache, out=out, as_json=as_json)


def load_judges(names: list[str], threads: int) -> "list[Embedder]":
    """Embedders from ``name`` or ``name=weights``."""
    from audioldm.evaluation.embedders.registry import load_embedder

    pairs = [name.partition("=") for name in names]
    return [load_embedder(name, path or None, threads=threads) for name, _, path in pairs]


def finish(
    compare: "Comparison", about: dict[str, Any], judges: "list[Embedder]", *,
    others: Path | None, cache: Path | None, out: Path, as_json: bool,
) -> None:  # fmt: skip
    """Score, write, print."""
    from audioldm.evaluation.cache import Cache
    from audioldm.evaluation.embedders.weights import cache_folder
    from audioldm.evaluation.page import write_page
    from audioldm.evaluation.text import as_csv, as_text
    from audioldm.pipeline.outputs import check_writable, publish, versions

    check_writable(out)
    compare.cache = Cache(cache or cache_folder() / "embeddings")
    compare.progress = stepping
    quiet()
    if others is not None:
        compare.others = Choice("any", "first", None, False, None).items(others)
    report = compare.run(judges, about | {"versions": versions()})
    text = json.dumps(report.as_dict(), indent=1, ensure_ascii=False) + "\n"
    title = (
        f"{about.get('model') or about['generated']} against {about.get('manifest') or about['reference']}"
    )
    page = write_page(report, compare.seeds[0], compare.real, paired=compare.pairs, title=title)
    files = {
        "report.json": text,
        "report.html": page,
        "clips.csv": as_csv(report),
        "report.md": as_text(report),
    }
    publish({out / name: content.encode() for name, content in files.items()})
    print(text if as_json else as_text(report) + f"{out / 'report.html'}\n", end="")
