"""The errors that the command line prints as one line: what a user can fix, and the loss of another process."""


class UserError(ValueError):
    """Bad input: a file, a folder, a flag or an argument. The message is one line that names it and says what to do."""


class ProcessLostError(RuntimeError):
    """Another process of the run has ended before its work was done; its own message says why."""
