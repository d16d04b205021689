"""What may differ between simulated sites: scanners and people, each by name."""

from collections.abc import Mapping

from mri_jax.errors import UserError

SCANNER_SHIFTS = ("contrast", "bias", "noise", "resolution", "gamma", "gain")
POPULATION_SHIFTS = ("age", "severity")
SHIFTS = (*SCANNER_SHIFTS, *POPULATION_SHIFTS)
"""Differences between sites, each of which can be switched by itself."""
SHIFT_SETS: Mapping[str, tuple[str, ...]] = {
    "scanner": SCANNER_SHIFTS,
    "population": POPULATION_SHIFTS,
    "both": SHIFTS,
    "none": (),
}
"""Named sets of differences, for cohorts whose truth is that only these differ.

What they say of shares of patients is in `mri_jax.simulation.cohorts_of_shift`.
"""


def shifts_named(text: str) -> tuple[str, ...]:
    """Returns the differences of a set, or those whose names stand between commas.

    Args:
      text: A key of `SHIFT_SETS`, or e.g. ``contrast,gamma``.

    Raises:
      UserError: A name is neither.
    """
    if text in SHIFT_SETS:
        return SHIFT_SETS[text]
    names = [name.strip() for name in text.split(",")]
    alone = [name for name in names if name in SHIFT_SETS]
    if alone:
        raise UserError(f"--shift: {alone[0]!r} stands alone; leave out the others, or name each")
    unknown = [name for name in names if name not in SHIFTS]
    if unknown:
        raise UserError(
            f"--shift: {unknown[0]!r} is unknown; choose one of {', '.join(SHIFT_SETS)}, or among "
            f"{', '.join(SHIFTS)}, with commas between them"
        )
    return tuple(name for name in SHIFTS if name in names)
