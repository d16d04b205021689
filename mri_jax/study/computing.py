"""By what the networks of a study are computed, as was decided before the first of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from mri_jax.models.chosen import Forms
from mri_jax.runs.provenance import Beside
from mri_jax.training.job import FitSettings


@dataclass(frozen=True)
class SideBySide:
    """How many networks of each program a device trains side by side.

    Attributes:
      by_program: By what `FitSettings.program` returns; one of any other.
    """

    by_program: Mapping[FitSettings, Beside] = field(default_factory=dict)

    def of(self, fit: FitSettings) -> int:
        """Returns how many networks a device trains at a time."""
        found = self.by_program.get(fit.program)
        return found.count if found else 1


@dataclass(frozen=True)
class Computing:
    """By what networks are computed.

    Attributes:
      devices: Platform and kind of each device.
      forms: How conv layers are computed; None: the machine's choice.
      kernels: File name of the native kernels; None where none are used.
      beside: How many networks a device trains side by side.
    """

    devices: tuple[str, ...]
    forms: Forms | None
    kernels: str | None
    beside: SideBySide = field(default_factory=SideBySide)
