"""``audioldm generate``: prompts in, sounds out."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audioldm.cli import stream
from audioldm.cli.checks import check_parts
from audioldm.cli.clips import Clip, check_outputs, files_of, is_finished, plan, process_slice
from audioldm.cli.console import progress, say, waiting
from audioldm.cli.options import Command, argument, changed, option
from audioldm.cli.options.conditioning import AudioPrompt, SoundConditions, read_audio_prompt, sound_embedding
from audioldm.cli.options.groups import Guidance, ManyOutputs, ModelOptions, Prompts, Sampling
from audioldm.cli.prompts import Row, read_rows
from audioldm.cli.results import Results, check_format, list_clips, options_alone, save
from audioldm.cli.startup import loading
from audioldm.errors import AudioLDMError
from audioldm.paths import sweep

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor

    from audioldm.batch import Condition
    from audioldm.cli.results import Wave
    from audioldm.control.source import MapSource
    from audioldm.pipeline.audioldm import AudioLDM
    from audioldm.pipeline.guidance import GuidanceConfig
    from audioldm.pipeline.spans import Span


class Generate(Command):
    """Make sounds from text.

    For each clip: PROMPT_seedN.wav, .png (waveform and log-mel) and .json (every setting, model and weight
    hashes, versions). Paths go to standard output (with --json, the .json files as one list), progress to
    standard error. The clip at place i of all prompts times -n has seed SEED+i. The same seed, settings, model,
    versions, device and number of threads give the same bytes, alone or among others at batch_size 1; other
    threads and batch sizes round differently, which a vocoder's phases add up. A clip that fails does not end
    the others.

    \b
    Examples:
      audioldm generate "a dog barking"
      audioldm generate "rain on a tin roof" -n 4 --seconds 10 --steps 50 --seed 7 -o out/rain
      audioldm generate "church bells" --sampler ddim:eta=0.5 --guidance 2.5 --negative "noise" --set grid=karras
      audioldm generate "church bells" --guidance 6 --set guidance_method=rescale:phi=0.7 --set guidance_interval=0.3,5
      audioldm generate "rain falling" --seconds 60 --set loop=true
      audioldm generate --set schedule="0-5 rain; 5-12 thunder and rain; 12-20 wind"
      audioldm generate "rain" --interpolate-to "wind:0,0.5,1" --set rerank=4
      audioldm generate "a big dog" --audio-prompt my_dog.wav:0.6
      audioldm generate "rain" --control loudness=ref.wav:0.8
      audioldm generate "a recording of <mine>" --adapter mine.safetensors --adapter hall.safetensors:0.6
      audioldm generate --prompts prompts.csv --dry-run
      audioldm generate --prompts prompts.csv --mode fast --set batch_size=8 --resume
      audioldm generate "a rooster" --lufs -23 -o out/rooster.mp3
      audioldm generate --replay out/a_dog_barking_seed0.json
      echo "waves on a beach" | audioldm generate - --format flac
      audioldm generate "a rooster" -m runs/my_model --device cuda --force
      audioldm generate "rain on a tin roof" --seconds 60 --stream | ffplay -nodisp -autoexit -
    """

    prompt: str | None = argument(None, "What to hear, in quotes; - reads prompts from standard input.")
    stream: bool = option(
        False, "Write a WAV to standard output while it is made; of -, a sound for each line as it comes."
    )
    prompts: Prompts = Prompts()
    sampling: Sampling = Sampling()
    guidance: Guidance = Guidance()
    conditions: SoundConditions = SoundConditions()
    output: ManyOutputs = ManyOutputs()
    model: ModelOptions = ModelOptions()

    def options(self, clip: Clip) -> dict[str, Any]:
        """The options that make ``clip`` alone, by which ``--replay`` makes it again and ``--resume`` compares it."""
        prompts = replace(self.prompts, prompts=None, n=1, seed=0, rerank=1, batch_size=1)
        if prompts.interpolate_to is not None:
            prompts = replace(prompts, interpolate_to=f"{prompts.shares()[0]}:{clip.share:g}")
        output = options_alone(self.output, clip.audio_format)
        options = changed(prompts, self.sampling, self.guidance, self.conditions, output, self.model)
        options |= clip.settings
        if clip.audio_prompt is not None:
            options["audio_prompt"] = f"{clip.audio_prompt[0]}:{clip.audio_prompt[1]!r}"
        return options

    def run(self) -> None:
        output = self.output
        if output.replay is not None:
            from audioldm.cli.replay import replay

            replay(self, output.replay)
            return
        check(self)
        if self.stream:
            stream.check(self)
            spans = self.prompts.spans(prompted=self.prompt is not None)
            if spans is None and self.prompt is None:
                raise AudioLDMError("There is no prompt.", "Give one in quotes, or - for standard input.")
            stream.stream(Session.load(self, [], spans), spans)
            return
        rows, spans, title = rows_of(self)
        groups = process_slice(plan(rows, self.prompts, output, title=title))
        for name in sorted({group[0].audio_format for group in groups}):
            check_format(name)
        maps = self.conditions.check()
        groups = to_make(groups, self)
        if output.dry_run:
            dry_run(groups, self)
        elif not groups:
            say("every clip is there already.")
        elif failures := Session.load(self, maps, spans).run(groups):
            raise AudioLDMError(
                f"{failures} of {len(groups)} clips failed.", "--resume makes what is missing.", code=1
            )


def check(request: Generate) -> None:
    """Refuse what no run could use, before anything heavy is imported."""
    request.output.check()
    request.model.check()


def check_libraries(request: Generate) -> None:
    """Refuse unknown samplers, grids, methods and absent devices; imports torch."""
    check_parts(sampler=request.sampling.sampler, grid=request.sampling.grid, device=request.model.device)
    request.guidance.check(request.sampling.sampler)


def rows_of(request: Generate) -> tuple[list[Row], "list[Span] | None", str]:
    """What to make: rows, the schedule that they have in common, and what clips without a prompt are named after."""
    prompt, prompts, conditions = request.prompt, request.prompts, request.conditions
    prompted = prompt is not None or prompts.prompts is not None
    spans, title = prompts.spans(prompted=prompted), request.guidance.guidance_class
    alone = not prompted and (conditions.audio_prompt or title) is not None
    reference = read_audio_prompt(conditions.audio_prompt, alone=alone)
    if spans is not None:
        if reference is not None:
            raise AudioLDMError("schedule does not go with --audio-prompt.", "Leave one out.")
        return [Row(prompts.schedule or "", "schedule")], spans, ""
    if not alone:
        return prompted_rows(request, reference), None, ""
    if (other := prompts.interpolate_to) is not None:
        raise AudioLDMError(f"interpolate-to={other!r} has no prompt to come from.", "Give one.")
    return [Row("", "audio-prompt", audio_prompt=reference)], None, title or ""


def prompted_rows(request: Generate, reference: AudioPrompt | None) -> list[Row]:
    """The rows of prompts; ``reference`` is the audio prompt of those that have none of their own."""
    rows = read_rows(request.prompt, request.prompts.prompts)
    if request.conditions.ip_adapter is not None and any(row.audio_prompt for row in rows):
        raise AudioLDMError("A column audio_prompt does not go with --ip-adapter.", "Give --audio-prompt.")
    return [replace(row, audio_prompt=row.audio_prompt or reference) for row in rows]


def to_make(groups: list[list[Clip]], request: Generate) -> list[list[Clip]]:
    """The clips whose files can be written; with --resume those that are not there, whole and as asked for."""
    output = request.output
    if not output.resume:
        check_outputs(groups, output)
        return groups
    if request.prompts.rerank > 1:
        raise AudioLDMError("resume does not go with rerank.", "Leave one of them out.")
    for folder in {files_of(group[0], output).audio.parent for group in groups}:
        sweep(folder)
    return [group for group in groups if not is_finished(group[0], output, request.options(group[0]))]


def dry_run(groups: list[list[Clip]], request: Generate) -> None:
    """Print what would be made."""
    check_libraries(request)
    from audioldm.components import warn_of_unused

    clips = [(group[0], request.options(group[0])) for group in groups]
    for _, options in clips:
        warn_of_unused(options.get("negative"), options.get("guidance"))
    best = f"clips, each the best of {request.prompts.rerank}," if request.prompts.rerank > 1 else "clips"
    list_clips(clips, request.output, best)


@dataclass(frozen=True)
class Session:
    """A loaded model and all that the clips of one command have in common."""

    request: Generate
    pipe: "AudioLDM"
    settings: dict[str, Any]
    config: "GuidanceConfig"
    spans: "list[Span] | None"
    embeddings: "dict[Path, Tensor]"
    """of audio prompts that are mixed into the condition"""

    @classmethod
    def load(cls, request: Generate, maps: "list[MapSource]", spans: "list[Span] | None") -> "Session":
        """Load the model, its guidance and its controls.   Raises AudioLDMError for what they cannot do."""
        sampling, guidance, conditions = request.sampling, request.guidance, request.conditions
        with waiting("loading torch and the model"), loading():
            check_libraries(request)
            pipe = request.model.load()
            config = guidance.config(request.model)
            if request.prompts.rerank > 1:
                from audioldm.pipeline.conditions import check_can_hear

                check_can_hear(pipe, "rerank")
        settings = {**vars(pipe.defaults), **sampling.settings(), **guidance.settings()}
        settings |= request.prompts.length(pipe, spans, sampling.seconds)
        config.check(sampler=settings["sampler"], scale=settings["guidance"], negative=guidance.negative)
        reference = read_audio_prompt(conditions.audio_prompt, alone=False)
        pipe = conditions.apply(pipe, maps, settings["seconds"], reference)
        return cls(request, pipe, settings, config, spans, {})

    def run(self, groups: list[list[Clip]]) -> int:
        """Make, save and print the best of each group; returns how many failed."""
        clips = [clip for group in groups for clip in group]
        results, failures = Results(self.request.output.as_json), 0
        with progress(sum(self.settings_of(clip)["steps"] for clip in clips)) as advance:
            waves = self.waves(clips, advance)
            for group in iter(lambda: list(islice(waves, self.request.prompts.rerank)), []):
                candidates = [(clip, wave, machine) for clip, wave, machine in group if wave is not None]
                if not candidates:
                    failures += 1
                    continue
                clip, wave, record = self.best(candidates)
                results.add(save(self.pipe, clip, wave, record, self.request.output))
                warn_of_silence(clip, wave)
        results.close()
        return failures

    def settings_of(self, clip: Clip) -> dict[str, Any]:
        """The settings of one clip by the pipeline's names."""
        settings = {**self.settings, **clip.settings}
        if self.request.prompts.loop and "seconds" in clip.settings:
            settings |= self.request.prompts.length(self.pipe, None, clip.settings["seconds"])
        return settings

    def waves(
        self, clips: list[Clip], advance: Callable[..., None]
    ) -> Iterator[tuple[Clip, "Wave | None", dict[str, int]]]:
        """Each clip with its wave (N,) as soon as its batch is done, None for one that failed, and its place there.

        A batch that fails is taken apart, so that only clips that fail alone are lost.   A single clip just raises.
        """
        size = self.request.prompts.batch_size
        alike = [list(group) for _, group in groupby(clips, key=self.settings_of)]
        queue = [group[first : first + size] for group in alike for first in range(0, len(group), size)]
        while queue:
            batch = queue.pop(0)
            try:
                waves = self.sample(batch, advance)
            except AudioLDMError as error:
                if len(clips) == 1 or error.code != 1:
                    raise
                if len(batch) > 1:
                    queue = [[clip] for clip in batch] + queue
                    continue
                say(f"{batch[0].prompt!r}, seed {batch[0].seed}: {error}")
                yield batch[0], None, {}
                continue
            for row, (clip, wave) in enumerate(zip(batch, waves, strict=True)):
                yield clip, wave, {"batch_size": len(batch), "batch_row": row}

    def sample(self, batch: list[Clip], advance: Callable[..., None]) -> "npt.NDArray[np.float32]":
        """The waves (B, N) of clips that have their settings in common; want of memory becomes an AudioLDMError."""
        import torch

        try:
            waves = self.pipe(
                [self.condition(clip) for clip in batch], seeds=[clip.seed for clip in batch], batch_size=len(batch),
                on_step=partial(advance, len(batch)), guidance_config=self.config, timeline=self.spans,
                loop=self.request.prompts.loop, **self.settings_of(batch[0]),
            )  # fmt: skip
        except (torch.OutOfMemoryError, MemoryError) as error:
            raise AudioLDMError(
                f"Out of memory with batch_size={len(batch)}.",
                "Use --set batch_size=1 or less --seconds.",
                code=1,
            ) from error
        return waves.float().cpu().numpy()

    def condition(self, clip: Clip) -> "str | Condition":
        """What the U-Net is conditioned on: the prompt itself where nothing is mixed into it."""
        from audioldm.pipeline.conditions import between

        other, _ = self.request.prompts.shares()
        path, share = clip.audio_prompt or (None, 0.0)
        mixed = path is not None and self.request.conditions.ip_adapter is None
        if not other and not mixed:
            return clip.prompt
        condition = self.pipe.encode_text([clip.prompt])
        if other and (film := self.pipe.encode_text([other]).film) is not None:
            condition = between(self.pipe, condition, film, clip.share)
        if mixed and path is not None:
            if path not in self.embeddings:
                self.embeddings[path] = sound_embedding(self.pipe, path)
            condition = between(self.pipe, condition, self.embeddings[path], share)
        return condition

    def best(
        self, candidates: list[tuple[Clip, "Wave", dict[str, int]]]
    ) -> tuple[Clip, "Wave", dict[str, Any]]:
        """The candidate that CLAP finds nearest to its condition, and its sidecar; a single one is not compared."""
        ranks: dict[str, Any] = {}
        place = 0
        if len(candidates) > 1:
            import torch

            from audioldm.pipeline.conditions import clap_scores

            waves = torch.stack([torch.from_numpy(wave) for _, wave, _ in candidates])
            condition = self.condition(candidates[0][0])
            film = None if isinstance(condition, str) else condition.film
            asked = self.pipe.clap.embed_text([candidates[0][0].prompt]) if film is None else film
            scores = clap_scores(self.pipe, waves, asked).tolist()
            place = scores.index(max(scores))
            listed = [
                {"seed": one.seed, "clap": score}
                for (one, _, _), score in zip(candidates, scores, strict=True)
            ]
            ranks = {"rerank": {"kept": candidates[place][0].seed, "candidates": listed}}
        clip, wave, machine = candidates[place]
        settings = {**self.settings_of(clip), **self.config.settings(), **self.described(clip), **ranks}
        options = self.request.options(clip)
        return (
            clip,
            wave,
            {"command": "generate", "settings": settings, "options": options, "machine": machine},
        )

    def described(self, clip: Clip) -> dict[str, Any]:
        """What else the sidecar says: conditions beside the prompt, with the hashes of their files."""
        from audioldm.paths import sha256

        prompts = self.request.prompts
        record: dict[str, Any] = {"schedule": prompts.schedule, "loop": prompts.loop}
        if self.pipe.controls:
            record["controls"] = [control.settings() for control in self.pipe.controls]
        if prompts.interpolate_to is not None:
            record["interpolate_to"] = {"prompt": prompts.shares()[0], "share": clip.share}
        if clip.audio_prompt is not None and self.request.conditions.ip_adapter is None:
            path, share = clip.audio_prompt
            record["audio_prompt"] = {"file": str(path), "sha256": sha256(path), "share": share}
        return record


def warn_of_silence(clip: Clip, wave: "Wave") -> None:
    """Say that a clip holds nothing to hear."""
    from torch import from_numpy

    from audioldm.pipeline.draws import silent

    if silent(from_numpy(wave)[None]):
        say(
            f"{clip.prompt!r}, seed {clip.seed}, came out silent. Try another --seed, "
            "--set retry_silent=8 or less --guidance."
        )
