"""What is raised when the user's input is at fault."""


class InputError(ValueError):
    """The input cannot be used: one line that names the culprit and the remedy.

    The shell prints it and exits with code 2.
    """


def first_line(error: BaseException) -> str:
    """The first line of an error's message, for quoting it inside an :class:`InputError`."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
