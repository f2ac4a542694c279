"""Name the intent of an utterance, end to end: `python -m examples.intent`."""
