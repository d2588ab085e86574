"""What a model has to clear before it is shipped, in one table with real sounds beside every number.

``sounds`` held-out rows and framing; ``prompts`` recognition and tag bridge; ``likeness`` distance, diversity, copies;
``pitch``; ``codec`` vocoder and VAE; ``check`` one line of the table; ``edits`` how good edits are, a table of its own.
"""
