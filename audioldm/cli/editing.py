"""One edit from files to files: checked before work, made take by take, described beside each result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audioldm.cli.checks import check_names, check_numbers, check_parts
from audioldm.cli.lean import import_nets, loading
from audioldm.cli.progress import progress, waiting
from audioldm.cli.results import files_of, save, tell
from audioldm.errors import AudioLDMError
from audioldm.pipeline.spans import Span, parse_schedule

if TYPE_CHECKING:
    from torch import Tensor

    from audioldm.cli.options.editing import How
    from audioldm.pipeline.outputs import Clip
    from audioldm.pipeline.sounds import Sound

Act = Callable[..., "Tensor"]
"""(audioldm.pipeline.edit, pipe, waves, **settings) -> wave"""
Regions = Sequence[tuple[float, float]]


def run(
    name: str,
    inputs: Sequence[Path],
    prompt: str,
    how: How,
    *,
    act: Act,
    options: dict[str, Any],
    splice: bool = False,
    regions: Regions = (),
    before: float = 0.0,
    after: float = 0.0,
) -> None:
    """Make every take of the edit ``name`` and print where it is; ``options`` is what the sidecar shows of it."""
    check_numbers(
        n=how.takes.n, seconds=None, steps=how.steps.steps, guidance=how.guiding.guidance, seed=how.takes.seed,
        batch_size=None, refine_phase=how.steps.refine_phase,
    )  # fmt: skip
    output, machine = how.output, how.machine
    check_names(
        audio_format=output.audio_format,
        device=machine.device,
        dtype=machine.dtype,
        out=output.out,
        mode=machine.mode,
    )
    if splice and not (regions or before or after):
        raise AudioLDMError(
            "--splice needs a region to put into the file.", "Give --from and --to in seconds."
        )
    if splice and output.normalize:
        raise AudioLDMError("--normalize would change what --splice keeps.", "Leave out one of them.")
    clips = plan(name, inputs, prompt, how)
    with waiting("loading torch and the model"), loading():
        import_nets()
        from audioldm.pipeline import edit, sounds

        files = [sounds.read(path) for path in inputs]
        check_parts(sampler=how.steps.sampler, grid=how.steps.grid, device=machine.device)
        how.guiding.check(how.steps.sampler)
        pipe = machine.load()
        guide = how.guiding.guide(machine)
    settings = {
        key: value for key, value in {**vars(pipe.defaults), **how.given()}.items() if key != "seconds"
    }
    guide.check(sampler=settings["sampler"], scale=settings["guidance"], negative=how.guiding.negative)
    shown = {
        **settings,
        **guide.settings(),
        "edit": name,
        "inputs": digests(inputs),
        "splice": splice,
        **options,
    }
    waves, results = [file.mono(pipe.spec.rate) for file in files], []
    with progress(len(clips) * 100) as advance:
        for clip in clips:
            with_bar = {**settings, "on_step": hundredths(advance)}
            wave = act(edit, pipe, waves, seed=clip.seed, guidance_config=guide, **with_bar)
            file = placed(files[0], wave, pipe.spec.rate, regions, before, after) if splice else None
            wave = wave if file is None else file.mono(pipe.spec.rate)
            results.append(save(pipe, clip, wave.float().cpu().numpy(), shown, output, file=file))
            if not output.as_json:
                tell(results[-1])
    if output.as_json:
        print(json.dumps(results, indent=2, ensure_ascii=False))


def plan(name: str, inputs: Sequence[Path], prompt: str, how: How) -> list[Clip]:
    """The takes, ``INPUT_EDIT_PROMPT_seedN``, once it is sure that their files can be written."""
    from audioldm.pipeline import outputs

    stem = " ".join([*(path.stem for path in inputs), name, prompt])
    clips = [outputs.Clip(prompt, how.takes.seed + i, named=stem) for i in range(how.takes.n)]
    if not how.output.force:
        outputs.check_free(path for clip in clips for path in files_of(clip, how.output).all())
    outputs.check_writable(how.output.out)
    return clips


def placed(file: Sound, wave: Tensor, rate: int, regions: Regions, before: float, after: float) -> Sound:
    """``file`` with the new parts of ``wave`` in it."""
    from audioldm.pipeline.edit import FADE
    from audioldm.pipeline.sounds import splice_into

    ends = [(0.0, before), (before + file.seconds, before + file.seconds + after)]
    new = [*regions, *(end for end in ends if end[1] > end[0])]
    return splice_into(file.padded(before, after), wave, rate, new, fade=FADE)


def hundredths(advance: Callable[..., None]) -> Callable[[int, int], None]:
    """An ``on_step`` that moves the bar of one take by 100 in all, however many steps there are."""
    told = 0

    def on_step(done: int, steps: int) -> None:
        nonlocal told
        now = 100 * done // steps
        advance(now - told)
        told = now

    return on_step


def read_prompt(prompt: str, schedule: str | None) -> str | list[Span]:
    """One prompt, or prompts over time."""
    if prompt and schedule:
        raise AudioLDMError(f"prompt={prompt!r} and --schedule were both given.", "Give one of them.")
    return parse_schedule(schedule) if schedule is not None else prompt


def digests(paths: Sequence[Path]) -> list[dict[str, str]]:
    """Path and sha256 of every input."""
    return [{"path": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()} for path in paths]
