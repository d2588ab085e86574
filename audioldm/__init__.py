"""AudioLDM: text to sound by latent diffusion.   ``from audioldm import AudioLDM`` loads the pipeline on first use."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from audioldm.pipeline.audioldm import AudioLDM

__version__ = "0.1.0"
__all__ = ["AudioLDM", "__version__"]


def __getattr__(name: str) -> Any:
    """Import the pipeline (and with it torch) only when it is asked for."""
    if name == "AudioLDM":
        from audioldm.pipeline.audioldm import AudioLDM

        return AudioLDM
    raise AttributeError(f"module 'audioldm' has no attribute {name!r}")
