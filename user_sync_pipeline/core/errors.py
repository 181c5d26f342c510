"""The few ways in which the pipeline fails, each with the exit code of the command line.

What belongs here: exceptions whose text is one sentence for a person, naming the setting or value and what
to do about it. Such a text never holds a secret or an e-mail address, because it is shown, logged and stored.
What does not: programming errors, which stay ordinary exceptions with their traceback.
"""


class UserSyncError(Exception):
    """A failure that the person at the keyboard can do something about."""

    exit_code = 1


class UsageError(UserSyncError):
    """An option or argument that cannot be meant: unknown mode, reversed window, limit below one."""

    exit_code = 2


class ConfigurationError(UserSyncError):
    """A setting is missing or wrong, or a permission is not granted."""

    exit_code = 3


class UnreachableError(UserSyncError):
    """A server does not answer, or answers only with errors that pass by themselves."""

    exit_code = 4


class PausedError(UserSyncError):
    """Stopped early by a quota or budget; what was stored is safe, and running again goes on from there."""

    exit_code = 5
