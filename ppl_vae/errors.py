"""What is raised when the user's input is at fault."""


class InputError(ValueError):
    """The input cannot be used: one line that names the culprit and the remedy.

    The shell prints it and exits with code 2. Names in it may be a stranger's: line feeds, and what
    would command a terminal, are written as escapes.

    Example:
        >>> print(InputError("a\\nb.npy is broken"))
        a\\nb.npy is broken
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


def printable(text: str) -> str:
    r"""Text without characters that move the cursor, change direction or end the line.

    Example:
        >>> printable("a\x1b[2Jb ± \u202ec")
        'a\\x1b[2Jb ± \\u202ec'
    """
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )


def first_line(error: BaseException) -> str:
    """The first line of an error's message, for quoting it inside an :class:`InputError`."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
