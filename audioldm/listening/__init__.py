"""Listening tests: prepare a blind test from folders of clips, serve its page, analyse the answers.

``design`` who hears what when; ``stimuli``, ``prepare`` folders of clips to a test; ``folder`` the test and its log;
``study`` taking it; ``server`` and ``page/`` where it is answered; ``analysis``, ``figures``,
``report`` what came out.
"""
