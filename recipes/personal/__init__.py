"""The table that compares what changes a model from outside."""
