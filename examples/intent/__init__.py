"""Name the intent of an utterance, end to end: `python -m examples.intent`."""

PROGRAM = f"python -m {__name__}"  # installed with jaxrnn, this package is `jaxrnn_examples.intent`
