"""The one exception that means "the user can mend this"."""


class UserError(ValueError):
    """A user's mistake: one line that names the field, the value and the rule.

    ``launch.py`` and ``python -m mri_jax`` print it without a traceback and exit with code 2.
    Anything else that escapes is a bug and gives a traceback.
    """
