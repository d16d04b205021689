"""The first layer of every network, and what it makes of one scan: for the report's pictures."""

from functools import partial
from typing import Any

import jax
import numpy as np
from etils import epath

from mri_jax.arrays import write_npz
from mri_jax.models import CNN, CNNSpec
from mri_jax.planning.plan import Plan, TrainStage
from mri_jax.runs import results
from mri_jax.study.feeds import Volumes
from mri_jax.study.stages import StageFolders


def write_first_layer(
    workdir: epath.Path, plan: Plan, volumes: Volumes, folders: StageFolders
) -> None:
    """Write ``filters.npz`` and ``feature_maps.npz``: conv1 of every network, and on one scan.

    Networks whose training failed are not among them.
    """
    entries = [
        (e, e.network)
        for e in plan.entries
        if isinstance(e.network, TrainStage) and e.repeat == 0 and not folders.failure(e.network)
    ]
    if not entries:
        return
    tested = [a for a in entries[0][0].answers if a.split == "test"]
    scan = (tested or list(entries[0][0].answers))[0].examples.rows[0]
    filters: dict[str, np.ndarray] = {}
    maps: dict[str, np.ndarray] = {"scan": np.array(" ".join(volumes.catalogue.keys[scan]))}
    for entry, stage in entries:
        name = f"{entry.run}/{entry.stage}/fold{entry.fold}/conv1"
        network = folders.network(stage)
        filters[name] = np.asarray(network.params["conv1"]["kernel"])
        if entry.fold == 0:
            volume = volumes.reader(stage.reference).read(scan)[None]
            maps[name] = first_feature_map(network.spec, network.variables, volume)
    write_npz(workdir / results.FILTERS, filters)
    write_npz(workdir / results.FEATURE_MAPS, maps)


def first_feature_map(spec: CNNSpec, variables: dict[str, Any], volume: np.ndarray) -> np.ndarray:
    """Returns (X, Y, Z, F) of conv1 after BatchNorm and ReLU, for one volume (1, X, Y, Z, C)."""
    return np.asarray(_feature_map(spec, variables, volume), np.float32)[0]


@partial(jax.jit, static_argnums=0)
def _feature_map(spec: CNNSpec, variables: Any, x: jax.Array) -> jax.Array:
    # Everything after the first layer is unused, and XLA leaves it out.
    _, kept = CNN(spec).apply(variables, x, train=False, intermediates=True)
    return kept["conv1/feature_map"]
