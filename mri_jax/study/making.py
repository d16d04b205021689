"""Makes the simulated cohorts of a study that is given none."""

from collections.abc import Callable

from etils import epath

from mri_jax import files
from mri_jax.cohort.table import read_table
from mri_jax.interruption import Interrupted
from mri_jax.locks import lock_of
from mri_jax.planning.catalogue import Catalogue
from mri_jax.planning.simulated import settings_of
from mri_jax.settings.study import Study
from mri_jax.simulation import SimulationSettings, simulate
from mri_jax.simulation.cohorts import paths_in
from mri_jax.study.twice import searched
from mri_jax.volumes.store import VolumeStore


def scans_to_make(study: Study, stages: epath.Path) -> int:
    """Returns how many scans `make` would simulate; those of a run that was stopped count again."""
    if not study.data.simulated:
        return 0
    settings = settings_of(study)
    return 0 if paths_in(_folder(settings, stages)).table_path.exists() else settings.total


def make(
    study: Study, catalogue: Catalogue, stages: epath.Path, interrupted: Callable[[], bool]
) -> tuple[Catalogue, VolumeStore]:
    """Simulates the scans of a catalogue, unless they are there already.

    Args:
      study: Says what to simulate.
      catalogue: Catalogue of scans that need not be there.
      stages: The folder of stages.
      interrupted: Whether to stop; asked after every scan.

    Returns:
      The same scans with what was measured of them, and the store of their volumes.

    Raises:
      Interrupted: ``interrupted`` said so; finished scans are kept.
    """

    def after_scan() -> None:
        if interrupted():
            raise Interrupted

    settings = settings_of(study)
    folder = _folder(settings, stages)
    with lock_of(folder.parent / f"{folder.name}.lock").acquire(timeout=-1):
        result = simulate(settings, folder, after_scan=after_scan)
    store = VolumeStore(result.store_path)
    catalogue = catalogue.measured(read_table(result.table_path))
    return searched(catalogue, store, result.table_path), store


def _folder(settings: SimulationSettings, stages: epath.Path) -> epath.Path:
    """Returns where simulated cohorts are kept: on this machine, since volumes are memory maps."""
    root = stages / "simulated"
    if files.on_bucket(stages):
        root = epath.Path("~/.cache/mri_jax/simulated").expanduser()
    return root / settings.fingerprint[:16]
