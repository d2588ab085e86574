"""Captions of sounds, and a prior in CLAP's space: trained, and judged."""
