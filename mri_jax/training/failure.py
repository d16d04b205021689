"""Whether a training ended with a network that may be used, and if not, why."""

import jax
import numpy as np

from mri_jax.training.loop import HISTORY, Progressed

_NOT_FINITE = HISTORY.index("not_finite")


def failure(ended: Progressed, steps: int, held_out: bool) -> str:
    """Returns why a finished training failed; empty where it did not.

    A step whose loss or gradient is not finite leaves the network as it was, so a training in which
    every step is such ends with the network that it began with.

    Args:
      ended: The state at its end.
      steps: Steps of an epoch.
      held_out: Whether an epoch was chosen on held-out scans; otherwise the last one is kept.

    Returns:
      One clause: no epoch had a finite held-out loss; no step up to the epoch that was kept, or
      none of a fixed length's last epoch, had a finite loss and gradient; or a parameter is not
      finite.
    """
    kept = int(ended.stopping.best_epoch)
    if held_out and kept == 0:
        return "no epoch had a finite held-out loss"
    left_out = ended.history[:kept, _NOT_FINITE]
    if left_out.sum() >= kept * steps:
        return "no step up to the epoch kept had a finite loss and gradient"
    if not held_out and left_out[-1] >= steps:
        return "no step of the last epoch had a finite loss and gradient"
    if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(ended.best)):
        return "a parameter of the network is not finite"
    return ""
