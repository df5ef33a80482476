"""The one exception that means "the caller's input is wrong", so that the shell can print it without a traceback."""

from __future__ import annotations


class UserError(ValueError):
    """An argument, a file or a setting given by the user cannot be used.

    The message names the argument, what came, what is wanted and how to get it.

    >>> from lt_nas_ext.errors import UserError
    >>> issubclass(UserError, ValueError)
    True
    """
