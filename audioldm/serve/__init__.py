"""The model for other programs: a queue of work, the API over HTTP, and the tool for agents."""
