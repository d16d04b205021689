"""What simulating a scan costs on this machine."""

import os
import time
from concurrent.futures import ThreadPoolExecutor

from mri_jax.simulation.people import scans_of
from mri_jax.simulation.render import renderer
from mri_jax.simulation.settings import CohortRequest, SimulationSettings
from mri_jax.volumes.grids import Grid


def scan_seconds(grid: Grid) -> float:
    """Measures the seconds of a scan, as many at once as the simulation makes."""
    workers = min(os.cpu_count() or 1, 4)
    some = CohortRequest("ADNI1", {"AD": 2 * workers + 1})
    scans = scans_of(SimulationSettings(grid.name, 0, (some,)))
    render = renderer(grid)
    render(scans[0])
    started = time.perf_counter()
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(render, scans[1:]))
    return (time.perf_counter() - started) / (len(scans) - 1)
