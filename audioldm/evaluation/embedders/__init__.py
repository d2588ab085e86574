"""Networks that turn a sound into numbers, behind one protocol, each known by the sha256 of its weights."""
