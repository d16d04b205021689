"""The cross-entropy of labelled scans: source networks, fine-tuning, pooled training."""

from dataclasses import dataclass

from mri_jax.training.objectives.interface import Asked, Objective, Terms


@dataclass(frozen=True)
class CrossEntropy(Objective):
    """Cross-entropy alone."""

    name = "cross-entropy"

    def terms(self, asked: Asked) -> Terms:
        """See `Objective`."""
        made = asked.trained(0, asked.labelled)
        return Terms(asked.cross_entropy(made.logits), made.batch_stats, asked.memory)
