"""How a study runs on this machine."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from mri_jax.models import choice
from mri_jax.training.devices import memory_of, one_fold_each
from mri_jax.training.folds import Wave
from mri_jax.volumes.store import VolumeStore


@dataclass(frozen=True)
class Running:
    """How a study runs here; determines nothing of what it finds.

    Attributes:
      wave: What to train on; by default every device trains a fold.
      store: The study's store, where it is open already.
      interrupted: Whether to save and stop; asked often.
      say: Where the summary goes.
      report: Whether to write figures, tables and ``report.html`` at the end.
    """

    wave: Wave | None = None
    store: VolumeStore | None = None
    interrupted: Callable[[], bool] = lambda: False
    say: Callable[[str], None] = print
    report: bool = True

    @cached_property
    def devices(self) -> Wave:
        """What to train on."""
        return self.wave or one_fold_each()

    @property
    def forms(self) -> str:
        """How conv layers are computed, of `mri_jax.models.choice.FORMS`."""
        return choice.resolved(self.devices.forms)

    @property
    def memory(self) -> int:
        """Bytes there are for a fold."""
        return memory_of(self.devices)
