"""Small weights on frozen nets: what is learned from a few sounds, kept in one file, and put on and off again."""
