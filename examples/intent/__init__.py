"""An intent classifier from text to server: `python -m examples.intent`.

This is the full application. `examples/first_intent.py` shows the same task in one short file.
"""

PROGRAM = f"python -m {__name__}"  # installed with jaxrnn, this package is `jaxrnn_examples.intent`
