"""Plain classifiers of a study, fitted to the scans of a stage."""

from typing import Any

import numpy as np

from mri_jax.evaluation import baselines
from mri_jax.evaluation.blocks import block_mean
from mri_jax.planning.catalogue import Examples
from mri_jax.planning.plan import BaselineStage
from mri_jax.study.feeds import Volumes


class BaselineFits:
    """Fits baselines; the coarse volumes that several need are computed once.

    Args:
      volumes: The scans.
    """

    def __init__(self, volumes: Volumes):
        self._volumes = volumes
        self._blocks: dict[Any, np.ndarray] = {}

    def logits(self, stage: BaselineStage) -> np.ndarray:
        """Fits a stage's classifier and returns its logits for the stage's scans, (N, 2)."""
        labels = np.array(stage.train.labels)
        train, tested = (
            baselines.values(self._volumes.catalogue.frame, stage.covariates, examples.rows)
            if stage.covariates
            else self._coarse(stage, examples)
            for examples in (stage.train, stage.tested)
        )
        return baselines.named(stage.name).fit(train, labels, stage.seed).logits(tested)

    def _coarse(self, stage: BaselineStage, examples: Examples) -> np.ndarray:
        spacing = self._volumes.catalogue.grid.spacing
        reader, blocks = self._volumes.reader(stage.reference), self._blocks
        for row in examples.rows:
            if (stage.reference, row) not in blocks:
                volume = reader.read(row)[..., 0]
                blocks[stage.reference, row] = block_mean(volume, spacing)
        return np.stack([blocks[stage.reference, row] for row in examples.rows])
