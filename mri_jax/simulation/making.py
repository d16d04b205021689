"""Making one scan of a simulated cohort, and the record that says that it is finished."""

from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np
from etils import epath

from mri_jax import files
from mri_jax.filenames import safe_name
from mri_jax.simulation import raw, truth
from mri_jax.simulation.people import SimulatedScan
from mri_jax.simulation.regions import HIPPOCAMPUS
from mri_jax.simulation.render import Rendered, renderer
from mri_jax.simulation.settings import SimulationSettings
from mri_jax.simulation.table import raw_path, table_row
from mri_jax.volumes.pipeline import EQUIVALENT, PreprocessSettings
from mri_jax.volumes.store import StoreInfo, StoreWriter


def volume_maker(
    settings: SimulationSettings, folder: epath.Path
) -> Callable[[SimulatedScan], None]:
    """Returns a function that renders, stores and records one scan."""
    store = store_of(folder / "store", settings)
    render = renderer(settings.volume_grid)

    def make(scan: SimulatedScan) -> None:
        rendered = render(scan)
        index = store.add(
            scan.subject_id, scan.session_id, scan.cohort, rendered.volume, rendered.mask
        )
        _record(folder, scan, rendered, settings, index=index)

    return make


def store_of(path: epath.Path, settings: SimulationSettings) -> StoreWriter:
    """Returns the writer of the store of simulated volumes."""
    info = StoreInfo(
        grid=settings.volume_grid,
        dtype="float16",
        simulated=True,
        settings={"simulation": settings.to_json()},
        provenance={
            **{name: version(name) for name in ("jax", "numpy", "nilearn")},
            # The volumes are drawn in template space, brain only, as the pipeline leaves them.
            EQUIVALENT: PreprocessSettings(grid=settings.volume_grid.name).to_json(),
        },
    )
    return StoreWriter(path, info)


def raw_maker(settings: SimulationSettings, folder: epath.Path) -> Callable[[SimulatedScan], None]:
    """Returns a function that renders a head, writes it into its BIDS tree and records it."""
    render = raw.head_renderer()

    def make(scan: SimulatedScan) -> None:
        head = render(scan)
        path = raw_path(scan)
        mask = folder / "truth" / "masks" / path.replace("_T1w.nii.gz", "_mask.nii.gz")
        truth.write_nifti(mask, head.rendered.mask.astype(np.uint8), head.affine, space="scanner")
        raw.write_head(folder / "rawdata" / path, head, scan)
        _record(folder, scan, head.rendered, settings)

    return make


def _record(
    folder: epath.Path,
    scan: SimulatedScan,
    rendered: Rendered,
    settings: SimulationSettings,
    **more: dict[str, Any],
) -> None:
    """Write down a finished scan's rows of the tables; a scan with a record is not made again."""
    hippocampus = float(rendered.volumes_ml[HIPPOCAMPUS])
    record = {
        "table": table_row(scan, hippocampus, settings),
        "truth": truth.truth_row(scan, rendered),
        **more,
    }
    files.write_json(part_of(folder, scan), record)


def part_of(folder: epath.Path, scan: SimulatedScan) -> epath.Path:
    """Returns the record of a scan, which is there once the scan is finished."""
    return folder / "parts" / safe_name(scan.cohort) / f"{safe_name(scan.name)}.json"
