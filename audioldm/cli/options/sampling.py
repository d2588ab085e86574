"""How a latent is sampled, and how long the sound is."""

from typing import Any

from audioldm.cli.options import Between, Group, option, setting


class Steps(Group):
    """How a latent is sampled; None is the model's own."""

    panel = "Sampling"
    steps: int | None = option(None, "Denoising steps.", Between(1, 1000))
    sampler: str | None = option(
        None, "Such as ddim or dpmpp_2m; see audioldm samplers.", "NAME[:OPTION=N,...]"
    )
    grid: str | None = setting(None, "Noise levels to visit.", "NAME[:OPTION=N,...]")
    refine_phase: int | None = setting(
        None, "Rounds that bring the vocoder's sound to its mel; 0 is none.", Between(0, 1000)
    )

    def settings(self) -> dict[str, Any]:
        """What is not left to the model, by the pipeline's names."""
        return {name: value for name, value in vars(self).items() if value is not None}


class Sampling(Steps):
    """``Steps``, and the length."""

    seconds: float | None = option(None, "Length of each clip, up to 600.", Between(0, 600, above=True))
    retry_silent: int | None = setting(
        None, "How often a clip that came out silent is sampled again; 0 is never.", Between(0, 100)
    )
