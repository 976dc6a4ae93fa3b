"""The errors that a user can mend: the command line prints them as one line and exits with code 2."""


class UserError(ValueError):
    """Bad input from outside: a file, a folder or a flag. The message is one line, names it and says what to do."""
