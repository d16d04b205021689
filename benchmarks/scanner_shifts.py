"""What a change of one scanner figure costs a source network, and what AdaBN wins back.

    python launch.py --config=configs/adaptation.py --config.adaptation.methods="('adabn',)" \\
        --config.simulation.shift=none --config.finetune.layers="()" --workdir=RUN
    python benchmarks/scanner_shifts.py RUN --cohort AIBL gamma=2 bias=0.5 contrast=1,0.7,0.5

SIMULATED: people of a cohort whose scanner is the source's are scanned again with the figure
changed (`mri_jax.simulation.sites.Site`), normalised as the run does, and shown to its source
networks. A fifth of the scans, as many of each class, gives AdaBN its statistics, the others test.
"""

import argparse
from dataclasses import dataclass, replace

import jax
import numpy as np

from mri_jax.evaluation.metrics import auc, five_metrics
from mri_jax.runs.trained import SOURCE, open_run
from mri_jax.simulation import CohortRequest, SimulationSettings
from mri_jax.simulation.people import SimulatedScan, scans_of
from mri_jax.simulation.render import renderer
from mri_jax.training.feed import OnDevice
from mri_jax.training.folds import Programs
from mri_jax.training.inference import predict
from mri_jax.training.statistics import reestimated
from mri_jax.training.step import StepSettings
from mri_jax.training.wave import Wave
from mri_jax.volumes.grids import grid_named
from mri_jax.volumes.normalise import Normalisation, normalise

_ADAPTING = 5  # One scan of so many adapts.


@dataclass(frozen=True)
class Scores:
    """Means over networks: AUC and balanced accuracy at argmax, before and after AdaBN."""

    auc: float
    bac: float
    adapted_auc: float
    adapted_bac: float


def changed(text: str) -> dict[str, float | tuple[float, ...]]:
    """Returns the fields of a site that ``gamma=2``, ``contrast=1,0.7,0.5`` set."""
    name, _, values = text.partition("=")
    numbers = tuple(map(float, values.split(",")))
    return {name: numbers if len(numbers) > 1 else numbers[0]}


def volumes_of(scans: list[SimulatedScan], grid: str, how: Normalisation) -> np.ndarray:
    """Returns (N, X, Y, Z, 1) normalised volumes, stored in between as a store does."""
    render, found = renderer(grid_named(grid)), []
    for scan in scans:
        made = render(scan)
        stored = made.volume.astype(np.float16).astype(np.float32)
        found.append(normalise(stored, made.mask, how)[..., None])
    return np.stack(found)


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", help="a results folder of launch.py")
    parser.add_argument("change", nargs="*", help="a field of a site and its value")
    parser.add_argument("--cohort", default="AIBL")
    parser.add_argument("--per-class", type=int, default=60)
    parser.add_argument("--stages", help="the run's finished stages; default: where it had them")
    options = parser.parse_intermixed_args()
    run = open_run(options.run, stages=options.stages)
    members = run.ensemble(run.variants[0], SOURCE)
    networks = [member.load() for member in members]
    simulation = run.study.simulation
    counts = dict.fromkeys(("AD", "CN"), options.per_class)
    settings = SimulationSettings(
        simulation.grid, simulation.seed, (CohortRequest(options.cohort, counts),), shifts=()
    )
    scans = scans_of(settings)
    label = np.array([scan.diagnosis == "AD" for scan in scans], int)
    order = np.concatenate([np.flatnonzero(label == c)[::_ADAPTING] for c in (0, 1)])
    # In turns, so that batches hold both classes.
    adapting = order.reshape(2, -1).T.ravel()
    tested = np.setdiff1d(np.arange(len(scans)), adapting)
    programs = Programs(Wave(tuple(jax.local_devices()[:1])))

    def scores(volumes: np.ndarray) -> Scores:
        feed, rows = OnDevice(volumes, range(len(volumes))), []
        for network in networks:
            step = StepSettings(network.spec)
            stacked = programs.wave.stack([network.variables])
            (statistics,) = reestimated(step, stacked, [adapting], feed, programs)
            adapted = programs.wave.stack([{**network.variables, "batch_stats": statistics}])
            row = []
            for variables in (stacked, adapted):
                (logits,) = predict(step, variables, [tested], feed, programs)
                score = logits[:, 1] - logits[:, 0]
                row += [auc(label[tested], score), five_metrics(label[tested], score, 0.0).bac]
            rows.append(row)
        return Scores(*map(float, np.mean(rows, axis=0)))

    print(f"SIMULATED; {len(networks)} networks, {len(tested)} scans of {options.cohort}")
    print(f"{'':<28}{'AUC':>8}{'BAC':>8}{'AdaBN: AUC':>12}{'BAC':>8}")
    for text in ("", *options.change):
        fields = changed(text) if text else {}
        others = [replace(s, site=replace(s.site, **fields)) for s in scans]
        found = scores(volumes_of(others, simulation.grid, run.normalisation))
        figures = (found.auc, found.bac, found.adapted_auc, found.adapted_bac)
        print(
            f"{text or 'as the source':<28}" + "{:>8.3f}{:>8.3f}{:>12.3f}{:>8.3f}".format(*figures)
        )


if __name__ == "__main__":
    main()
