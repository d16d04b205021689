"""What a user asks ``explain`` for."""

from dataclasses import dataclass, field
from pathlib import Path

from mri_jax.explanation.methods import MethodSettings
from mri_jax.explanation.selection import ScanChoice


@dataclass(frozen=True)
class Request:
    """What a user asks for.

    Attributes:
      variant: Network variant; empty takes the run's first.
      stages: ``source``, ``tuned-...``; empty takes all of the variant.
      cohort: Whose scans are explained.
      subjects: Only these; empty draws `per_class` of each class.
      per_class: Subjects of each class; 0 takes all.
      methods: Names; empty takes all that can show something of the network.
      settings: Settings of the methods.
      regions: Label image; None takes the simulation's regions.
      region_names: Table of its labels.
      seed: Seed of draws.
      threads: That read volumes.
      forms: How conv layers are computed, of `mri_jax.models.choice.FORMS`; None: the machine's
        choice.
    """

    cohort: str
    variant: str = ""
    stages: tuple[str, ...] = ()
    subjects: tuple[str, ...] = ()
    per_class: int = 10
    methods: tuple[str, ...] = ()
    settings: MethodSettings = field(default_factory=MethodSettings)
    regions: Path | None = None
    region_names: Path | None = None
    seed: int = 0
    threads: int = 2
    forms: str | None = None

    @property
    def choice(self) -> ScanChoice:
        """Which scans are asked for."""
        return ScanChoice(self.cohort, self.subjects, self.per_class, self.seed)
