"""The errors that the command line prints as one line: what a user can fix, and the loss of another process."""


class UserError(ValueError):
    """Bad input: a file, a folder, a flag or an argument. The message is one line that names it and says what to do."""


class ProcessLostError(RuntimeError):
    """Another process of the run has ended before its work was done; its own message says why."""


def one_line(text: object, longest: int = 300) -> str:
    """Return a text of unknown origin, such as another library's error, in a form that fits into a message.

    Args:
        text: anything that has a text.
        longest: characters, above which the rest is left out.

    Returns:
        One line without control characters.
    """
    words = " ".join(str(text)[: 10 * longest].split())
    line = "".join(char if char.isprintable() else "?" for char in words)
    return line if len(line) <= longest else f"{line[:longest]}..."
