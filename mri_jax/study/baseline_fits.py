"""Plain classifiers of a study, fitted to the scans of a stage."""

from typing import Any

import numpy as np

from mri_jax.evaluation import baselines, combat
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
        train, tested = (self._features(stage, e) for e in (stage.train, stage.tested))
        if stage.site:
            tested = self._harmonised(stage, train, tested)
        return baselines.named(stage.name).fit(train, labels, stage.seed).logits(tested)

    def _features(self, stage: BaselineStage, examples: Examples) -> np.ndarray:
        """Returns (N, P) features of scans."""
        if stage.covariates:
            frame = self._volumes.catalogue.frame
            return baselines.values(frame, stage.covariates, examples.rows)
        return self._coarse(stage, examples)

    def _harmonised(
        self, stage: BaselineStage, train: np.ndarray, tested: np.ndarray
    ) -> np.ndarray:
        """Returns the tested features, those of the stage's site harmonised to the source's."""
        frame = self._volumes.catalogue.frame
        at_source, shown, asked = (
            baselines.values(frame, stage.kept, e.rows) if stage.kept else np.zeros((len(e), 0))
            for e in (stage.train, stage.unlabelled, stage.tested)
        )
        there = self._features(stage, stage.unlabelled)
        fitted = combat.fit((train, at_source), (there, shown))
        inside = frame["cohort"].to_numpy()[list(stage.tested.rows)] == stage.site
        changed = np.array(tested, float)
        changed[inside] = fitted.apply(changed[inside], asked[inside])
        return changed

    def _coarse(self, stage: BaselineStage, examples: Examples) -> np.ndarray:
        spacing = self._volumes.catalogue.grid.spacing
        reader, blocks = self._volumes.reader(stage.reference), self._blocks
        for row in examples.rows:
            if (stage.reference, row) not in blocks:
                volume = reader.read(row)[..., 0]
                blocks[stage.reference, row] = block_mean(volume, spacing)
        return np.stack([blocks[stage.reference, row] for row in examples.rows])
