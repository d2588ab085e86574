"""The bars that a model has to clear: one file a question, each answer with the real sounds' own beside it."""
