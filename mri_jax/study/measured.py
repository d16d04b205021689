"""What each room says that its work costs on this machine, measured once and kept.

Measurements lie under the stages folder, by device and program, so that a second ``--plan`` prints
at once.
"""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import jax
from etils import epath

from mri_jax import files, sealed
from mri_jax.evaluation.cost import voxels_seconds
from mri_jax.planning.plan import BaselineStage
from mri_jax.settings.study import Study
from mri_jax.simulation.cost import scan_seconds
from mri_jax.study.feeds import expected_bytes
from mri_jax.training import cost
from mri_jax.training.job import FitSettings
from mri_jax.training.wave import Wave
from mri_jax.volumes.cost import volume_seconds
from mri_jax.volumes.grids import Grid

# Rises when what is measured changes.
_VERSION = 6


class Costs:
    """Measures what is asked for, or finds it measured.

    Args:
      root: The folder of stages.
      wave: What will be trained on.
      study: Says how volumes are read and how often states are saved.
      say: Where it is said that something is measured.
    """

    def __init__(
        self, root: epath.Path, wave: Wave, study: Study, say: Callable[[str], None] = print
    ):
        self.wave, self.save_seconds = wave, study.save_seconds
        self._root, self._data, self._say, self._said = root, study.data, say, False

    def program(self, fit: FitSettings, grid: Grid) -> cost.ProgramCost:
        """Returns the cost of a training program on volumes of a grid."""
        about = ["program", repr(fit.program), list(grid.shape)]
        found = self._kept(about, lambda: asdict(cost.measure(fit, grid.shape, self.wave)))
        return cost.ProgramCost(**found)

    def scan_seconds(self, grid: Grid) -> float:
        """Returns the seconds of simulating a scan."""
        return self._kept(["scan", grid.name, list(grid.shape)], lambda: scan_seconds(grid))

    def volume_seconds(self, grid: Grid) -> float:
        """Returns the seconds of reading and normalising a volume for the first time."""
        how, threads = self._data.intensities, self._data.threads
        about = ["volume", list(grid.shape), repr(how), threads]
        return self._kept(about, lambda: volume_seconds(grid, how, threads))

    def baseline_seconds(self, stage: BaselineStage) -> float:
        """Returns the seconds of fitting a plain classifier."""
        if stage.covariates:
            return 0.1
        scans = len(stage.train)
        return self._kept(["voxels", scans], lambda: voxels_seconds(scans))

    def held_bytes(self, scans: int, grid: Grid) -> int:
        """Returns the memory that volumes will take, in bytes."""
        return expected_bytes(scans, grid.shape, self._data, self.wave)

    def _kept(self, about: list[Any], measure: Callable[[], Any]) -> Any:
        wave = self.wave
        device = [wave.devices[0].device_kind, wave.folds, wave.split, jax.__version__]
        device.append(wave.computed)
        if isinstance(wave.forms, tuple):
            device.append([[str(each.layer), each.layer.dtype, each.form] for each in wave.forms])
        name = files.fingerprint([_VERSION, *about, *device])
        path = self._root / "measured" / f"{name[:16]}.json"

        def said() -> Any:
            if not self._said:
                self._say("measuring steps on this machine, once for each kind of network and grid")
                self._said = True
            return measure()

        return sealed.kept(path, said)
