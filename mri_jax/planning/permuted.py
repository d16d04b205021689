"""A stage whose labels are permuted: what a network learns where there is nothing to learn."""

from dataclasses import replace

from mri_jax.planning.catalogue import Catalogue, Examples
from mri_jax.planning.fingerprints import fingerprinted
from mri_jax.planning.plan import TrainStage
from mri_jax.seeding import generator
from mri_jax.settings.study import Study


def permute_labels(stage: TrainStage, study: Study, catalogue: Catalogue) -> TrainStage:
    """Returns the stage with the labels of its training and validation scans permuted, each apart.

    Its random streams (initial weights, order, dropout) are its own.
    """

    def shuffled(examples: Examples, part: str) -> Examples:
        order = generator(stage.seed, "permuted", part, *stage.purpose).permutation(len(examples))
        return Examples(examples.rows, tuple(examples.labels[i] for i in order))

    changed = replace(
        stage,
        purpose=("permuted", *stage.purpose),
        train=shuffled(stage.train, "train"),
        validation=shuffled(stage.validation, "validation"),
    )
    return fingerprinted(changed, study, catalogue)
