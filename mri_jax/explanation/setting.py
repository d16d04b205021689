"""What all maps of one call have in common."""

from collections.abc import Sequence
from dataclasses import dataclass

from mri_jax.explanation.methods import AttributionMethod, Background
from mri_jax.explanation.regions import Regions
from mri_jax.explanation.score import ScoredNetwork
from mri_jax.explanation.truth import Truth
from mri_jax.runs.trained import Member


@dataclass(frozen=True, eq=False)
class ExplanationSetting:
    """What holds for all maps of one call.

    Attributes:
      stages: Names of the stages.
      networks: Every network that explains a scan.
      methods: The methods.
      background: What the scans are set against.
      regions: On the grid of the volumes.
      truth: Where disease acts, on simulated cohorts that are checked; else None.
      check: Whether to measure how the networks agree.
      classes: Diagnoses of the scans with label 0 and 1.
      learned: Diagnoses of label 0 and 1 that the source networks learned.
      simulated: Whether the scans are.
    """

    stages: tuple[str, ...]
    networks: dict[Member, ScoredNetwork]
    methods: Sequence[AttributionMethod]
    background: Background
    regions: Regions
    truth: Truth | None
    check: bool
    classes: tuple[str, str]
    learned: tuple[str, str]
    simulated: bool
