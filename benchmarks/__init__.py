"""How fast, against whom, and how near to what the machine can do.   Run as modules from the repository's root."""
