"""Checkpoints by Orbax: the only door to it.

Everything is stored as host NumPy arrays, so that a checkpoint written on any number of devices
opens on any other. A checkpoint appears whole or not at all.
"""

import contextlib
import errno
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath
from orbax.checkpoint import v1 as ocp

from mri_jax import files
from mri_jax.errors import UserError
from mri_jax.models import CNNSpec

FORMAT = 1
_STAGE_CHECKPOINT = "network"


class Network(NamedTuple):
    """A network as read from a checkpoint.

    Attributes:
      params: ``{"conv1": {"kernel": ...}, "bn1": {"scale": ..., "bias": ...}, ...}``, NumPy.
      batch_stats: ``{"bn1": {"mean": ..., "var": ...}, ...}``, NumPy.
      spec: The architecture; ``CNN(spec).apply(network.variables, x, train=False)``.
      info: What the writer noted beside it (run, stage, fold, best epoch, ...).
    """

    params: dict[str, Any]
    batch_stats: dict[str, Any]
    spec: CNNSpec
    info: dict[str, Any]

    @property
    def variables(self) -> dict[str, Any]:
        """``{"params": ..., "batch_stats": ...}``, the form that Flax takes."""
        return {"params": self.params, "batch_stats": self.batch_stats}


def save_network(
    path: epath.PathLike,
    variables: Mapping[str, Any],
    spec: CNNSpec,
    info: Mapping[str, Any],
) -> None:
    """Write parameters, statistics and spec as one checkpoint, replacing an earlier one.

    Args:
      path: The checkpoint's folder.
      variables: ``{"params": ..., "batch_stats": ...}``.
      spec: The architecture.
      info: JSON-serialisable notes.
    """
    with _disk_full_in_one_line(path):
        ocp.save(
            files.absolute(path),
            _to_host(dict(variables)),
            overwrite=True,
            custom_metadata={"format": FORMAT, "spec": spec.to_dict(), "info": dict(info)},
        )


def load_params(checkpoint: epath.PathLike) -> Network:
    """Parameters, statistics and spec of a trained network, on any machine.

    Args:
      checkpoint: A checkpoint's folder, or the folder of the stage that holds it (``plan.json`` of
        a results folder lists the stages' folders).

    Returns:
      A `Network` of NumPy arrays.

    Raises:
      UserError: There is no checkpoint, or it is of another format.

    Example:
      network = mri_jax.load_params("stages/source-1a2b3c4d5e6f")
      logits = CNN(network.spec).apply(network.variables, x, train=False)
    """
    path = files.absolute(checkpoint)
    if (path / _STAGE_CHECKPOINT).exists():
        path = path / _STAGE_CHECKPOINT
    try:
        metadata = ocp.metadata(path).custom_metadata
    except (FileNotFoundError, ValueError):  # Orbax's InvalidLayoutError is a ValueError
        raise UserError(f"{checkpoint}: holds no checkpoint") from None
    if not metadata or metadata.get("format") != FORMAT:
        raise UserError(f"{checkpoint}: is a checkpoint of another format than {FORMAT}")
    tree = ocp.load(path)
    return Network(
        tree["params"], tree["batch_stats"], CNNSpec.from_dict(metadata["spec"]), metadata["info"]
    )


def network_path(stage_folder: epath.PathLike) -> epath.Path:
    """Where a stage keeps its finished network."""
    return epath.Path(stage_folder) / _STAGE_CHECKPOINT


class TrainingCheckpoints:
    """The states of one training, the last two kept, so that a killed run can go on.

    Leaves of a state may be any arrays, PRNG keys as their key data. The structure comes from the
    caller when loading (`load_last`), so that named tuples and optimizer states come back as they
    were.
    """

    def __init__(self, folder: epath.PathLike):
        self.folder = files.absolute(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._checkpointer = ocp.training.Checkpointer(
            self.folder,
            save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(1),
            preservation_policy=ocp.training.preservation_policies.LatestN(2),
            cleanup_tmp_directories=True,
        )

    def save(self, state: Any) -> None:
        """Write the state as the newest; returns when it is on disk."""
        latest = self._checkpointer.latest
        number = 0 if latest is None else latest.step + 1
        leaves = jax.tree.leaves(_to_host(state))
        named = {f"leaf{index:05d}": leaf for index, leaf in enumerate(leaves)}
        with _disk_full_in_one_line(self.folder):
            self._checkpointer.save(number, named, force=True)

    def load_last(self, like: Any) -> Any | None:
        """The newest state in the structure of ``like``, as NumPy arrays; None if there is none."""
        latest = self._checkpointer.latest
        if latest is None:
            return None
        named = self._checkpointer.load(latest.step)
        leaves, structure = jax.tree.flatten(like)
        if len(leaves) != len(named):
            raise UserError(
                f"{self.folder}: its {len(named)} arrays do not fit this training's "
                f"{len(leaves)}; remove the folder to train this stage anew"
            )
        return jax.tree.unflatten(structure, [named[name] for name in sorted(named)])

    def close(self) -> None:
        """Release Orbax's threads."""
        with _disk_full_in_one_line(self.folder):  # it tells of a failed save again
            self._checkpointer.close()

    def __enter__(self) -> "TrainingCheckpoints":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


@contextlib.contextmanager
def _disk_full_in_one_line(path: epath.PathLike) -> Iterator[None]:
    """TensorStore tells of a full disk by a ValueError, in many lines."""
    try:
        yield
    except (OSError, ValueError) as error:
        full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
        if full or "RESOURCE_EXHAUSTED" in str(error) or "No space left" in str(error):
            raise UserError(f"{path}: the disk is full") from error
        raise


def _to_host(tree: Any) -> Any:
    return jax.tree.map(np.asarray, jax.device_get(tree))
