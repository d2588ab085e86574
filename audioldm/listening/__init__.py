"""Listening tests: prepare a blind test from folders of clips, serve its page, analyse the answers."""
