"""``audioldm generate``: prompts in, sounds out, and the sound of a sidecar again."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, partial
from itertools import chain, groupby, islice
from pathlib import Path
from typing import Any

from audioldm.cli.clips import Clip, Row, check_outputs, is_finished, plan, read_rows
from audioldm.cli.console import progress, say, waiting, warned
from audioldm.cli.options import Between, Group, argument, changed, groups, option, restored, setting
from audioldm.cli.results import Making, Wave, pcm16, save, wav_header
from audioldm.cli.startup import later, loading
from audioldm.errors import AudioLDMError
from audioldm.paths import sha256, sweep
from audioldm.tables import read_text

with later():
    import torch

    from audioldm import batch
    from audioldm.cli import edit
    from audioldm.pipeline import conditions, longform, run

Candidate = tuple[Clip, Wave, dict[str, int]]  # with its place in its batch


class ManyOutputs(groups.Output):
    resume: bool = option(False, "Make only clips that are not there, whole and with these settings.")
    replay: Path | None = option(None, "Make the sound of a .json again, and compare.", "FILE.json")


class Generate(Making):
    """Make sounds from text.

    For each clip: PROMPT_seedN.wav, .png (waveform and log-mel) and .json (every setting, model and weight
    hashes, versions). Paths go to standard output (with --json, the .json files as one list), progress to
    standard error. The clip at place i of all prompts times -n has seed SEED+i. The same seed, settings, model,
    versions, device and number of threads give the same bytes, alone or among others at batch_size 1; other
    threads and batch sizes round differently, which a vocoder's phases add up. A clip that fails does not end
    the others. Maps to follow: loudness, pitch, onset, centroid, edges. Recipes of one net each say how to use it
    by --refiner, --ip-adapter, --prior or --micro (audioldm recipes).

    Examples:
      audioldm generate "a dog barking"
      audioldm generate "rain on a tin roof" -n 4 --seconds 10 --steps 50 --seed 7 -o out/rain
      audioldm generate "church bells" --sampler ddim:eta=0.5 --guidance 2.5 --negative "noise" --set grid=karras
      audioldm generate --set schedule="0-5 rain; 5-12 thunder and rain; 12-20 wind"
      audioldm generate "rain" --interpolate-to "wind:0,0.5,1" --set rerank=4
      audioldm generate "a big dog" --audio-prompt my_dog.wav:0.6
      audioldm generate "rain" --control loudness=ref.wav:0.8
      audioldm generate "a recording of <mine>" --adapter mine.safetensors --adapter hall.safetensors:0.6
      audioldm generate --prompts prompts.csv --mode fast --set batch_size=8 --resume
      audioldm generate "a rooster" --lufs -23 -o out/rooster.mp3
      audioldm generate --replay out/a_dog_barking_seed0.json
      echo "waves on a beach" | audioldm generate - --format flac
      audioldm generate "rain on a tin roof" --seconds 60 --stream | ffplay -nodisp -autoexit -
    """

    prompt: str | None = argument(None, "What to hear, in quotes; - reads prompts from standard input.")
    stream: bool = option(False, "Write a WAV to standard output while it is made; of -, line by line.")
    prompts: groups.Prompts = groups.Prompts()
    sampling: groups.Sampling = groups.Sampling()
    guidance: groups.Guidance = groups.Guidance()
    conditions: groups.SoundConditions = groups.SoundConditions()
    output: ManyOutputs = ManyOutputs()
    model: groups.ModelOptions = groups.ModelOptions()

    def options(self, clip: Clip) -> dict[str, Any]:
        """The options that make ``clip`` alone, by which ``--replay`` makes it again and ``--resume`` compares it."""
        prompts = replace(self.prompts, prompts=None, n=1, seed=0, rerank=1, batch_size=1)
        if prompts.interpolate_to is not None:
            prompts = replace(prompts, interpolate_to=f"{prompts.shares()[0]}:{clip.share:g}")
        output = self.output.alone(clip.audio_format)
        options = changed(prompts, self.sampling, self.guidance, self.conditions, output, self.model)
        options |= clip.settings
        if clip.audio_prompt is not None:
            options["audio_prompt"] = f"{clip.audio_prompt[0]}:{clip.audio_prompt[1]!r}"
        return options

    def results(self) -> Iterator[dict[str, Any]]:
        if self.output.replay is not None:
            yield from replay(self, self.output.replay)
        elif self.stream:
            stream(self)
        elif not (clips := self.planned()):
            say("every clip is there already.")
        elif self.output.dry_run:
            self.show_clips(clips)
        else:
            yield from Session(self).results(clips)

    def show_clips(self, clips: list[list[Clip]]) -> None:
        rerank = self.prompts.rerank
        self.check()
        best = f"clips, each the best of {rerank}," if rerank > 1 else "clips"
        self.show_plan([(first, self.options(first)) for first, *_ in clips], best)

    def planned(self) -> list[list[Clip]]:
        """Each clip of this process as its candidates; with --resume if it is not there, whole and as asked for."""
        output = self.output
        clips = plan(self.rows(), self.prompts, output, title=self.guidance.guidance_class or "")
        self.conditions.check()
        check_outputs(clips, output)
        # where torchrun started n processes each makes every n-th
        clips = clips[int(os.environ.get("RANK", "0")) :: int(os.environ.get("WORLD_SIZE", "1"))]
        if not output.resume:
            output.check_free(*chain(*(clip.files(output).values() for clip in chain(*clips))))
            return clips
        if self.prompts.rerank > 1:
            raise AudioLDMError("resume does not go with rerank.", "Leave one of them out.")
        for folder in {clip.files(output)["audio"].parent for [clip] in clips}:
            sweep(folder)
        return [[clip] for [clip] in clips if not is_finished(clip, output, self.options(clip))]

    def rows(self) -> list[Row]:
        prompts, sound = self.prompts, self.conditions.audio_prompt
        prompted = (self.prompt, prompts.prompts) != (None, None)
        alone = not prompted and any((sound, self.guidance.guidance_class))
        reference = groups.read_audio_prompt(sound, alone=alone)
        if prompts.spans(self.prompt) is not None:
            if reference is not None:
                raise AudioLDMError("schedule does not go with --audio-prompt.", "Leave one out.")
            return [Row(prompts.schedule or "", "schedule")]
        if alone:
            if (other := prompts.interpolate_to) is not None:
                raise AudioLDMError(f"interpolate-to={other!r} has no prompt to come from.", "Give one.")
            return [Row("", "audio-prompt", audio_prompt=reference)]
        rows = read_rows(self.prompt, prompts.prompts)
        if self.conditions.ip_adapter is not None and any(row.audio_prompt for row in rows):
            what = "A column audio_prompt does not go with --ip-adapter."
            raise AudioLDMError(what, "Give --audio-prompt.")
        return [replace(row, audio_prompt=row.audio_prompt or reference) for row in rows]


class Session:
    """The model that a command loads, and all that its clips have in common.   Raises AudioLDMError."""

    def __init__(self, request: Generate) -> None:
        self.request, self.prompts = request, request.prompts
        self.timeline, sources = self.prompts.spans(request.prompt), request.conditions.check()
        with waiting("loading torch and the model"), loading():
            request.check()
            pipe, self.config, self.settings = request.load()
        if self.prompts.rerank > 1:
            conditions.check_can_hear(pipe, "rerank")
        if self.timeline and request.sampling.seconds is None:
            self.settings["seconds"] = self.timeline[-1].end
        self.pipe = request.conditions.apply(pipe, sources, self.settings["seconds"])
        # of an audio prompt that is mixed into the condition; each is made once
        self.embedding = cache(partial(groups.sound_embedding, self.pipe))

    def results(self, plan: list[list[Clip]]) -> Iterator[dict[str, Any]]:
        """Make and save the best of each clip's candidates.   Raises AudioLDMError at the end where some failed."""
        clips, failures = list(chain.from_iterable(plan)), 0
        self.pipe.engine.seconds = sum(self.settings_of(clip)["seconds"] for clip in clips)
        with progress(sum(self.settings_of(clip)["steps"] for clip in clips)) as advance:
            waves = (wave for batch in self.batches(clips) for wave in self.waves(batch, len(clips), advance))
            while group := list(islice(waves, self.prompts.rerank)):
                if candidates := [(clip, wave, place) for clip, wave, place in group if wave is not None]:
                    yield self.save(candidates)
                else:
                    failures += 1
        if failures:
            raise AudioLDMError(f"{failures} of {len(plan)} clips failed.", "Go on with --resume.", code=1)

    def settings_of(self, clip: Clip) -> dict[str, Any]:
        """Of a clip, a loop's seconds to whole latent frames."""
        settings = {**self.settings, **clip.settings}
        if self.prompts.loop:
            frames = longform.loop_frames(self.pipe, settings["seconds"])
            settings["seconds"] = frames * self.pipe.spec.seconds_per_latent
        return settings

    def batches(self, clips: list[Clip]) -> Iterator[list[Clip]]:
        for _, alike in groupby(clips, key=self.settings_of):
            while batch := list(islice(alike, self.prompts.batch_size)):
                yield batch

    def waves(
        self, batch: list[Clip], total: int, advance: Callable[..., None]
    ) -> Iterator[tuple[Clip, Wave | None, dict[str, int]]]:
        """Each clip of a batch with its wave (N,), None for one that failed, and its place there.

        A batch that fails is taken apart, so that only clips that fail alone are lost.   A single clip just raises.
        """
        try:
            waves = self.sample(batch, advance)
        except AudioLDMError as error:
            if total == 1 or error.code != 1:
                raise
            if len(batch) > 1:
                for clip in batch:
                    yield from self.waves([clip], total, advance)
            else:
                say(f"{batch[0].prompt!r}, seed {batch[0].seed}: {error}")
                yield batch[0], None, {}
            return
        for row, (clip, wave) in enumerate(zip(batch, waves, strict=True)):
            yield clip, wave, {"batch_size": len(batch), "batch_row": row}

    def sample(self, batch: list[Clip], advance: Callable[..., None]) -> Wave:
        """The waves (B, N) of clips that have their settings in common; want of memory becomes an AudioLDMError."""
        try:
            waves = self.pipe(
                [self.condition(clip) for clip in batch], seeds=[clip.seed for clip in batch], batch_size=len(batch),
                on_step=partial(advance, len(batch)), guidance_config=self.config, timeline=self.timeline,
                loop=self.prompts.loop, **self.settings_of(batch[0]),
            )  # fmt: skip
        except (torch.OutOfMemoryError, MemoryError) as error:
            what = f"Out of memory with batch_size={len(batch)}."
            raise AudioLDMError(what, "Use --set batch_size=1 or less --seconds.", code=1) from error
        return waves.float().cpu().numpy()

    def condition(self, clip: Clip) -> str | batch.Condition:
        """What the U-Net is conditioned on: the prompt itself where nothing is mixed into it."""
        other, _ = self.prompts.shares()
        mixed = self.request.conditions.ip_adapter is None
        path, share = (mixed and clip.audio_prompt) or (None, 0.0)
        if not other and path is None:
            return clip.prompt
        condition = self.pipe.encode_text([clip.prompt])
        if other and (film := self.pipe.encode_text([other]).film) is not None:
            condition = conditions.between(self.pipe, condition, film, clip.share)
        if path is not None:
            condition = conditions.between(self.pipe, condition, self.embedding(path), share)
        return condition

    def best(self, candidates: list[Candidate]) -> tuple[Candidate, dict[str, Any]]:
        """The one that CLAP finds nearest to its condition, and the ranks; a single one is not compared."""
        if len(candidates) == 1:
            return candidates[0], {}
        clip = candidates[0][0]
        film = getattr(self.condition(clip), "film", None)
        film = self.pipe.clap.embed_text([clip.prompt]) if film is None else film
        waves = torch.stack([torch.from_numpy(wave) for _, wave, _ in candidates])
        scores = conditions.clap_scores(self.pipe, waves, film).tolist()
        listed = [{"seed": one[0].seed, "clap": score} for one, score in zip(candidates, scores, strict=True)]
        best = candidates[scores.index(max(scores))]
        return best, {"rerank": {"kept": best[0].seed, "candidates": listed}}

    def save(self, candidates: list[Candidate]) -> dict[str, Any]:
        (clip, wave, machine), ranks = self.best(candidates)
        settings = {**self.settings_of(clip), **self.config.settings(), **ranks, "loop": self.prompts.loop}
        settings |= {"schedule": self.prompts.schedule}
        if self.pipe.controls:
            settings["controls"] = [control.settings() for control in self.pipe.controls]
        if self.prompts.interpolate_to is not None:
            settings["interpolate_to"] = {"prompt": self.prompts.shares()[0], "share": clip.share}
        if clip.audio_prompt is not None and self.request.conditions.ip_adapter is None:
            path, share = clip.audio_prompt
            settings["audio_prompt"] = {"file": str(path), "sha256": sha256(path), "share": share}
        about = {"command": "generate", "settings": settings, "options": self.request.options(clip)}
        result = save(self.pipe, clip, wave, {**about, "machine": machine}, self.request.output)
        if run.silent(torch.from_numpy(wave)[None]):
            use = "Try another --seed, --set retry_silent=8 or less --guidance."
            say(f"{clip.prompt!r}, seed {clip.seed}, came out silent. {use}")
        return result


def stream(request: Generate) -> None:
    """Write the sound of every prompt behind the one before to standard output, each piece as soon as it is there."""
    prompts = request.prompts
    if others := sorted(changed(prompts, request.conditions, request.output).keys() - {"seed", "schedule"}):
        raise AudioLDMError(f"--stream does not go with {', '.join(others)}.", "Leave one out.")
    if sys.stdout.isatty():
        hint = "Such as: audioldm generate ... --stream | ffplay -nodisp -autoexit -"
        raise AudioLDMError("--stream writes sound, and standard output is a terminal.", hint)
    text = request.prompt or prompts.schedule
    if text is None:
        raise AudioLDMError("There is no prompt.", "Give one in quotes, or - for standard input.")
    session, out = Session(request), sys.stdout.buffer
    out.write(wav_header(session.pipe.spec.rate))
    made_by = {"timeline": session.timeline, "guidance_config": session.config, **session.settings}
    for place, line in enumerate(filter(None, map(str.strip, sys.stdin if text == "-" else [text]))):
        with warned():
            for piece in session.pipe.stream(line, seed=prompts.seed + place, **made_by):
                out.write(pcm16(piece))
                out.flush()


PLACE = Path("out/replay")  # Where it writes unless ``--out`` names another place


class Machine(Group):
    """What of a sidecar, beside its options, decides the bytes."""

    seed: int = setting(0, "", groups.SEEDS)
    threads: int = setting(1, "", Between(1, 1024))
    batch_size: int = setting(1, "", Between(1, 4096))
    batch_row: int = setting(0, "", Between(0, 4095))


def replay(request: Generate, path: Path) -> Iterator[dict[str, Any]]:
    """Make the sound of a sidecar again where ``request`` says, and say how it differs.   Raises AudioLDMError."""
    if request.prompt is not None or request.prompts.prompts is not None:
        raise AudioLDMError("A prompt and --replay were both given.", "Give one of them.")
    record, machine = read_sidecar(path)
    options = {**record["options"], **changed(request.model)}
    kind: type[Making] = edit.EDITS.get(record["command"].removeprefix("edit "), Generate)
    again = restored(kind, options)
    out = PLACE if request.output.out == Path("out") else request.output.out
    before = {name: getattr(again.output, name) for name in ("audio_format", "normalize", "lufs")}
    again = replace(again, output=replace(request.output, out=out, replay=None, **before))
    threads = torch.get_num_threads()
    torch.set_num_threads(machine.threads)
    try:
        if isinstance(again, edit.Edit):
            results = replace(again, takes=replace(again.takes, seed=machine.seed)).results()
        else:
            assert isinstance(again, Generate)
            prompts = replace(again.prompts, seed=machine.seed)
            prompt = (record["prompt"] or None) if prompts.schedule is None else None
            results = generated(replace(again, prompt=prompt, prompts=prompts), machine)
        for result in results:
            yield result
            changes = []
            for part in ("versions", "machine", "settings", "model"):
                old, new = record.get(part, {}), json.loads(json.dumps(result[part]))
                for name in sorted(name for name in {*old, *new} if old.get(name) != new.get(name)):
                    changes.append(f"{part}.{name} was {old.get(name)!r}, is {new.get(name)!r}")
            same = result["sound"]["sha256"] == record["sound"]["sha256"]
            others = f"other bytes. Different: {'; '.join(changes)[:800] or 'nothing that is recorded'}"
            say(f"{path}: {'the same bytes' if same else others}.")
    finally:
        torch.set_num_threads(threads)


def generated(request: Generate, machine: Machine) -> Iterator[dict[str, Any]]:
    """The clip of ``audioldm generate``, in the place of its batch that it had."""
    clips = request.planned()
    if request.output.dry_run:
        request.show_clips(clips)
        return
    session, [[clip]], size = Session(request), clips, machine.batch_size
    session.pipe.engine.seconds = session.settings_of(clip)["seconds"]  # as if it was made alone
    with progress(session.settings_of(clip)["steps"] * size) as advance:
        wave = session.sample([clip] * size, advance)[machine.batch_row]
    yield session.save([(clip, wave, {"batch_size": size, "batch_row": machine.batch_row})])


def read_sidecar(path: Path) -> tuple[dict[str, Any], Machine]:
    """A sidecar and what of it decides the bytes.   Raises AudioLDMError where it has not all that a replay needs."""
    try:
        record: dict[str, Any] = json.loads(read_text(path))
        about = {name: record["machine"][name] for name in ("threads", "batch_size", "batch_row")}
        machine = restored(Machine, {**about, "seed": record["seed"]})
        texts = (record["prompt"], record["sound"]["sha256"], record["command"])
        if not isinstance(record["options"], dict) or set(map(type, texts)) != {str}:
            raise ValueError("a value of another type")
        if machine.batch_row >= machine.batch_size:
            raise ValueError("a batch without its row")
    except (AudioLDMError, OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
        what = f"replay={path} is no sidecar of a clip ({reason})."
        raise AudioLDMError(what, "Name the .json beside a sound.") from error
    return record, machine
