"""Published checkpoints: their files, their names, their shapes, and ours for each of them."""
