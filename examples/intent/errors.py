"""The one error that is the user's to mend: it is printed as a line, without a traceback."""


class UserError(ValueError):
    """What is wrong with the data, the bundle or the text, and what to do."""
