"""Early stopping as a pure, checkpointable state: when to stop and which epoch was best."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from mri_jax.errors import UserError


@dataclass(frozen=True)
class StoppingSettings:
    """How long to train.

    Attributes:
      min_epochs: Never stop before this many epochs.
      max_epochs: Always stop after this many.
      patience: Stop after this many epochs in a row without a fall of the validation loss by more
        than ``min_delta``.
      min_delta: What counts as "changes little".
    """

    min_epochs: int
    max_epochs: int
    patience: int = 10
    min_delta: float = 0.0

    def __post_init__(self):
        if not 1 <= self.min_epochs <= self.max_epochs:
            raise UserError(
                f"min_epochs: {self.min_epochs} must be at least 1 and at most "
                f"max_epochs, {self.max_epochs}"
            )
        if self.patience < 1:
            raise UserError(f"patience: {self.patience} must be at least 1")
        if not self.min_delta >= 0:
            raise UserError(f"min_delta: {self.min_delta} must not be negative")


@dataclass(frozen=True)
class StepLimits:
    """Limits of a training in steps, so that small cohorts, whose epochs are short, learn as long.

    Attributes:
      min_steps: Never stop before this many steps; 0 sets no limit.
      patience_steps: Wait this many steps for a fall of the validation loss; 0 sets no limit.
    """

    min_steps: int = 0
    patience_steps: int = 0

    def applied(self, settings: StoppingSettings, steps: int) -> StoppingSettings:
        """Returns the rule in epochs for a training of ``steps`` steps an epoch.

        Of each limit in epochs and in steps the later one holds. The largest number of epochs is
        raised where fewer would not reach ``min_steps``; nothing else raises it.
        """
        in_epochs = [-(-limit // max(steps, 1)) for limit in (self.min_steps, self.patience_steps)]
        least = max(settings.min_epochs, in_epochs[0])
        return replace(
            settings,
            min_epochs=least,
            max_epochs=max(settings.max_epochs, least),
            patience=max(settings.patience, in_epochs[1]),
        )


class Stopping(NamedTuple):
    """The state of early stopping; every field is a NumPy scalar array, so it can be saved.

    Attributes:
      epochs: Epochs finished.
      best_loss: Lowest validation loss so far.
      best_epoch: The epoch (from 1) of ``best_loss``; 0 before any finite loss.
      reference: The loss that the next one must undercut by ``min_delta`` to count as a fall.
      waited: Epochs in a row without a fall.
    """

    epochs: np.ndarray
    best_loss: np.ndarray
    best_epoch: np.ndarray
    reference: np.ndarray
    waited: np.ndarray


def start() -> Stopping:
    """Returns the state before the first epoch."""
    infinity = np.asarray(np.inf, np.float64)
    zero = np.asarray(0, np.int32)
    return Stopping(zero, infinity, zero, infinity, zero)


def update(state: Stopping, loss: float, settings: StoppingSettings) -> tuple[Stopping, bool]:
    """Take in the validation loss of one more epoch.

    Args:
      state: Before the epoch.
      loss: Its validation loss; a loss that is not finite is never an improvement.
      settings: The rule.

    Returns:
      The state after the epoch, and whether this epoch is the best so far.
    """
    epochs = state.epochs + 1
    better = bool(np.isfinite(loss) and loss < state.best_loss)
    fell = bool(np.isfinite(loss) and loss < state.reference - settings.min_delta)
    return Stopping(
        np.asarray(epochs, np.int32),
        np.asarray(loss if better else state.best_loss, np.float64),
        np.asarray(epochs if better else state.best_epoch, np.int32),
        np.asarray(loss if fell else state.reference, np.float64),
        np.asarray(0 if fell else state.waited + 1, np.int32),
    ), better


def finished(state: Stopping, settings: StoppingSettings) -> bool:
    """Returns whether training ends here."""
    if state.epochs >= settings.max_epochs:
        return True
    return bool(state.epochs >= settings.min_epochs and state.waited >= settings.patience)
