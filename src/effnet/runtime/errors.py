"""The error for what a user can fix: the command line prints it as one line and exits with code 2."""


class UserError(ValueError):
    """Bad input: a file, a folder, a flag or an argument. The message is one line that names it and says what to do."""
