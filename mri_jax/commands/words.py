"""Words of a command line that hold several: names, pairs, what counts as missing."""

import argparse

from mri_jax.delimited import MISSING, words_for_missing
from mri_jax.errors import UserError


def missing(args: argparse.Namespace) -> frozenset[str]:
    """Returns the words of ``--missing``; by default the usual ones."""
    return words_for_missing(args.missing) if args.missing else MISSING


def pair(text: str, option: str) -> tuple[str, str]:
    """Returns the two sides of ``NAME=VALUE``."""
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise UserError(f"--{option}: {text!r} must have the form NAME=VALUE")
    return name, value


def names(text: str) -> tuple[str, ...]:
    """Returns the parts between commas."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def tesla(text: str, value: str) -> float:
    """Returns the field strength in ``COHORT=TESLA``."""
    try:
        return float(value)
    except ValueError:
        raise UserError(f"--field: {text!r} must be COHORT=TESLA, e.g. ADNI1=1.5") from None
