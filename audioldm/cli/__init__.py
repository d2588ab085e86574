"""The commands; those that share most are in one file."""
