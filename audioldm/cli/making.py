"""What generating and editing have in common: options, refusals, the model, and what is printed of each sound."""

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from audioldm.cli.clips import Clip
from audioldm.cli.console import printable, say
from audioldm.cli.options import Command
from audioldm.cli.options.groups import Guidance, ModelOptions, Output, Steps

if TYPE_CHECKING:
    from audioldm.pipeline.audioldm import AudioLDM
    from audioldm.pipeline.guidance import GuidanceConfig


class Making(Command):
    """A command that makes sounds."""

    sampling: Steps = Steps()
    guidance: Guidance = Guidance()
    output: Output = Output()
    model: ModelOptions = ModelOptions()

    def results(self) -> Iterator[dict[str, Any]]:
        """Make and save every sound; gives the sidecar and the paths of each.   A dry run only lists them."""
        raise NotImplementedError

    def run(self) -> None:
        """Print the paths of each sound as soon as it is there, or with --json all sidecars at the end."""
        rows = []
        try:
            for row in self.results():
                rows.append(row)
                for name in ("audio", "figure", "sidecar") if not self.output.as_json else ():
                    if row[name]:
                        print(printable(row[name]), flush=True)
        finally:
            if self.output.as_json and rows:
                print(json.dumps(rows, indent=2, ensure_ascii=False))

    def check(self) -> None:
        """Refuse what no run could use, before anything heavy is imported."""
        self.output.check()
        self.model.check()

    def check_libraries(self) -> None:
        """Refuse unknown samplers, grids, methods and absent devices; imports torch."""
        self.sampling.check(self.model.device)
        self.guidance.check(self.sampling.sampler)

    def load(self) -> "tuple[AudioLDM, GuidanceConfig, dict[str, Any]]":
        """The model, its guidance, and all settings by the pipeline's names.   Raises AudioLDMError."""
        pipe, guidance = self.model.load(), self.guidance
        config = guidance.config(self.model)
        settings = {**vars(pipe.defaults), **self.sampling.named(), **guidance.settings()}
        config.check(sampler=settings["sampler"], scale=settings["guidance"], negative=guidance.negative)
        return pipe, config, settings

    def show_plan(self, clips: "Sequence[tuple[Clip, dict[str, Any]]]", what: str) -> None:
        """Print what would be made: the file of each clip and the options that are not the model's own."""
        from audioldm.components import warn_of_unused

        rows = []
        for clip, options in clips:
            warn_of_unused(options.get("negative"), options.get("guidance"))
            audio = str(clip.files(self.output)["audio"])
            rows.append({"audio": audio, "prompt": clip.prompt, "seed": clip.seed, **options})
        if self.output.as_json:
            print(json.dumps(rows, indent=2, ensure_ascii=False))
            return
        for row in rows:
            names = [name for name in row if name not in ("audio", "prompt", "audio_format")]
            rest = "".join(f"  {name}={row[name]}" for name in names)
            print(printable(f"{row['audio']}  {row['prompt']!r}{rest}"))
        say(f"dry run: {len(rows)} {what} would be made.")
