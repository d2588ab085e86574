"""Inference: composes nets and diffusion; knows nothing of training."""
