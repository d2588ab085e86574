"""Listening tests: prepare a blind test from folders of clips, serve its page, analyse the answers.

``design`` who hears what when; ``sources``, ``stimuli``, ``prepare`` folders of clips to a test; ``folder``, ``store``
the test and its log; ``study`` taking it; ``server`` and ``page/``, ``widget``, ``simulate`` three ways to answer;
``screening``, ``analysis``, ``figures``, ``tables``, ``report``, ``report_page`` what came out.
"""
