"""Mistakes that the user can mend, and what the disk cannot hold."""

import contextlib
from collections.abc import Iterator


class UserError(ValueError):
    """A user's mistake: one line that names the field, the value and the rule.

    ``launch.py`` and ``python -m mri_jax`` print it without a traceback and exit with code 2.
    Anything else that escapes is a bug and gives a traceback.
    """


class DiskFull(UserError):
    """There is no room for what was to be written: nothing that follows could be either."""


@contextlib.contextmanager
def naming(field: str) -> Iterator[None]:
    """Put the name of a field before a mistake of one line; lists of faults stay as they are."""
    try:
        yield
    except UserError as error:
        if type(error) is not UserError:
            raise
        raise UserError(f"{field}: {error}") from None
