"""How numbers are written in tables, on pages and in sentences."""

import re

import numpy as np

DASH = "–"
"""What stands for a number that is not known."""
MINUS = "−"
_ENDS_AS_NUMBER = re.compile(r"(^|\s)[-+]?\d[\d.,]*$")


def percent(value: float, digits: int = 1) -> str:
    """Returns a fraction in percent; a dash where it is NaN."""
    return DASH if np.isnan(value) else f"{100 * value:.{digits}f}"


def signed(value: float, digits: int = 1) -> str:
    """Returns a difference of fractions in percentage points; a dash where it is NaN.

    >>> signed(0.0124), signed(-0.003, 2), signed(-0.0001)
    ('+1.2', '−0.30', '0.0')
    """
    if np.isnan(value):
        return DASH
    shown = f"{100 * value:+.{digits}f}".replace("-", MINUS)
    return shown[1:] if not float(shown[1:]) else shown


def ratio(value: float) -> str:
    """Returns an odds ratio with two decimals; ``∞`` where one side never errs."""
    return "∞" if np.isinf(value) else f"{value:.2f}"


def gibibytes(count: int) -> str:
    """Returns a number of bytes in GiB.

    >>> gibibytes(850 << 20)
    '0.83 GiB'
    """
    size = count / 2**30
    return f"{size:.2f} GiB" if size < 1 else f"{size:.1f} GiB"


def p_value(value: float) -> str:
    """Returns a p-value with three decimals; a dash where it is NaN."""
    if np.isnan(value):
        return DASH
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def class_named(name: str) -> str:
    """Returns what a class is called beside a number: ``AD``, but ``class 1``."""
    return f"class {name}" if _ENDS_AS_NUMBER.search(name) else name


def of_class(name: str, n: int) -> str:
    """Returns how many are of a class.

    >>> of_class("AD", 205), of_class("-1", 31)
    ('AD 205', 'class -1: 31')
    """
    named = class_named(name)
    return f"{named} {n}" if named == name else f"{named}: {n}"


def interval(low: float, high: float) -> str:
    """Returns the limits of an interval of fractions in percent; nothing where one is NaN.

    >>> interval(0.8213, 0.88)
    '[82.1, 88.0]'
    """
    if np.isnan(low) or np.isnan(high):
        return ""
    # Adding zero turns a rounded -0.0 into 0.0.
    limits = [f"{round(100 * limit, 1) + 0.0:.1f}" for limit in (low, high)]
    return f"[{', '.join(limits)}]".replace("-", MINUS)


def estimated(value: float, low: float, high: float) -> str:
    """Returns a fraction and the limits of its interval in percent.

    >>> estimated(0.8213, 0.7031, 0.88)
    '82.1 [70.3, 88.0]'
    """
    return f"{percent(value)} {interval(low, high)}".rstrip()


def mean_sd(mean: float, sd: float) -> str:
    """Returns the mean and the SD of fractions in percent; the mean alone where the SD is NaN.

    >>> mean_sd(0.8213, 0.02), mean_sd(0.8213, float("nan"))
    ('82.1 ± 2.0', '82.1')
    """
    return percent(mean) + ("" if np.isnan(sd) else f" ± {percent(sd)}")


def difference(first: str, second: str, change: str = "", on: str = "") -> str:
    """Returns how much a method differs from another, as every page and line says it.

    Args:
      first: The method.
      second: What it is compared with; the change is first minus second.
      change: Percentage points, with their spread or interval; empty where they are not known.
      on: The cohort and the score, where the text around does not say them.

    >>> difference("cnn5-w1 tuned-high", "source", "+1.2 ± 0.3", "ADNI2: AUC")
    'cnn5-w1 tuned-high minus source on ADNI2: AUC +1.2 ± 0.3 points'
    """
    compared = f"{first} minus {second}" + (f" on {on}" if on else "")
    return f"{compared} {change} points" if change else compared
