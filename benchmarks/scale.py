"""How time and memory grow with the number of scans.

    python -m benchmarks.scale --scans 100 1000 10000 --out growth.png

Each part runs in a process of its own on a store whose volumes (9 x 12 x 10 voxels) are a few files
under many names, with checksums and descriptions of their own where nothing reads the volumes. A
row of the table is a part, a column a number of scans: seconds and the most memory of the process.
The picture has both against the number of scans, with lines of n and n log n.
"""

import argparse
import contextlib
import hashlib
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from mri_jax.cli import main as command
from mri_jax.cohort import near_duplicates
from mri_jax.cohort.table import write_table
from mri_jax.planning.planner import make_plan
from mri_jax.study.scans import open_catalogue
from mri_jax.training.resident import peak
from mri_jax.volumes import described, descriptors
from mri_jax.volumes.store import StoreInfo, StoreWriter, VolumeStore
from tests import studies, synthetic_run
from tests.tiny import GRID, SMALL_MODEL

COHORTS = ("ADNI1", "ADNI2", "ADNI3", "AIBL")
_FILES = 64
_SMALL = ("ADNI1", (60, 60))


def make(folder: Path, scans: int) -> None:
    """Writes a table and a store of so many scans."""
    rng = np.random.default_rng(0)
    writer = StoreWriter(folder / "store", StoreInfo(GRID, "float16", True, {"made": "scale"}, {}))
    mask = np.zeros(GRID.shape, bool)
    mask[1:-1, 1:-2, 1:-1] = True
    one = [
        writer.add(
            f"base-{i}", "bl", "base", np.where(mask, rng.normal(10, 1, GRID.shape), 0), mask
        )
        for i in range(min(scans, _FILES))
    ]
    table, index, placed = [], [], set()
    for i in range(scans):
        base, cohort = one[i % len(one)], COHORTS[i % len(COHORTS)]
        name, sha = f"{cohort}-{i:06d}", hashlib.sha256(str(i).encode()).hexdigest()
        row = {"subject_id": name, "session_id": "bl", "cohort": cohort}
        files = {}
        for column in ("volume", "mask"):
            place = Path(base[column]).with_name(f"{name}_{column}.npy")
            os.link(folder / "store" / base[column], folder / "store" / place)
            files[column] = str(place)
        index.append({**base, **row, **files, "sha256": sha})
        person = {"diagnosis": ("AD", "CN")[i // 4 % 2], "age": 60 + i % 30 + i / 1e6}
        table.append({**row, **person, "sex": "FM"[i // 8 % 2], "image": ""})
        placed.add(descriptors.file_name(sha))
    frame = pd.DataFrame(index)
    writer.write_index(frame)
    write_table(folder / "cohort.csv", pd.DataFrame(table))
    (folder / "store" / Path(next(iter(placed))).parent).mkdir(parents=True, exist_ok=True)
    for name in placed:
        drawn = rng.integers(-60, 60, descriptors.cells(), dtype=np.int8)
        np.save(folder / "store" / name, drawn)


def open_store(folder: Path, scans: int) -> None:
    """Opens the store."""
    assert len(VolumeStore(folder / "store")) == scans


def plan(folder: Path, scans: int) -> None:
    """Opens table and store and plans a study; the first time near-identical volumes are sought."""
    places = {"data__cohort": str(folder / "cohort.csv"), "data__store": str(folder / "store")}
    small = {f"model__{field}": value for field, value in SMALL_MODEL.items()}
    study = studies.study("baseline", **places, **small)
    catalogue = open_catalogue(folder / "cohort.csv", VolumeStore(folder / "store"), study)
    assert make_plan(study, catalogue).stages()


def near(folder: Path, scans: int) -> None:
    """Searches for near-identical volumes."""
    store = VolumeStore(folder / "store")
    keys = list(store.index.index)
    own = described.of_scans(store, keys)
    volumes = near_duplicates.compared(own, descriptors.mirrored)
    assert near_duplicates.alike(volumes, [subject for subject, _ in keys]).found == []


def check_volumes(folder: Path, scans: int) -> None:
    """Reads every volume and mask and compares them with their checksums."""
    index = folder / "store" / "index.csv"
    frame = pd.read_csv(index, dtype=str, keep_default_na=False)
    base = {}
    for row in frame.to_dict("records"):
        place = folder / "store" / row["volume"]
        base.setdefault(place.stat().st_ino, hashlib.sha256(place.read_bytes()).hexdigest())
    inode = [(folder / "store" / volume).stat().st_ino for volume in frame["volume"]]
    frame.assign(sha256=[base[i] for i in inode]).to_csv(index, index=False)
    store = VolumeStore(folder / "store")
    started = time.perf_counter()
    store.check(list(store.index.index))
    print(json.dumps({"seconds": time.perf_counter() - started}))


def check_table(folder: Path, scans: int) -> None:
    """Checks the cohort table (``cohort check``)."""
    assert command(["cohort", "check", str(folder / "cohort.csv")]) == 0


def report(folder: Path, scans: int) -> None:
    """Writes the report of a run with so many test scans."""
    name, size = _SMALL
    cohorts = {name: size, "AIBL": (scans // 2, scans - scans // 2)}
    run = synthetic_run.write_run(folder / "run", simulated=True, cohorts=cohorts)
    started = time.perf_counter()
    assert command(["report", str(run)]) == 0
    print(json.dumps({"seconds": time.perf_counter() - started}))


PARTS: dict[str, Callable[[Path, int], None]] = {
    "open a store": open_store,
    "near-identical volumes": near,
    "open table and store, plan": plan,
    "the same again": plan,
    "check a table": check_table,
    "check volumes": check_volumes,
    "report": report,
}


def measured(part: str, folder: Path, scans: int) -> tuple[float, float]:
    """Returns seconds, without imports, and the most GB of a process that does a part."""
    asked = [sys.executable, "-m", "benchmarks.scale", "--part", part, "--folder", str(folder)]
    done = subprocess.run(
        [*asked, "--scans", str(scans)], capture_output=True, encoding="utf-8", check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    told = json.loads(done.stdout.splitlines()[-1])
    return told["seconds"], told["bytes"] / 1e9


def run_part(part: str, folder: Path, scans: int) -> None:
    """Does a part and prints its seconds, those that it counts itself if it does, and bytes."""
    said = io.StringIO()
    started = time.perf_counter()
    with contextlib.redirect_stdout(said):
        PARTS[part](folder, scans)
    seconds = time.perf_counter() - started
    lines = said.getvalue().splitlines()
    if lines and lines[-1].startswith('{"seconds"'):
        seconds = json.loads(lines[-1])["seconds"]
    print(json.dumps({"seconds": seconds, "bytes": peak()}))


def drawn(found: dict[str, list[tuple[float, float]]], scans: list[int]) -> Figure:
    """Returns seconds and memory against the number of scans, on logarithmic axes."""
    figure = Figure(figsize=(10.5, 3.8), layout="constrained")
    for place, (axes, what) in enumerate(
        zip(figure.subplots(1, 2), ("seconds", "most memory, GB"), strict=True)
    ):
        for part, rows in found.items():
            axes.loglog(scans[: len(rows)], [row[place] for row in rows], "o-", label=part)
        axes.set_xlabel("scans")
        axes.set_ylabel(what)
    axes = figure.axes[0]
    x = np.array(scans, float)
    axes.loglog(x, 0.02 * x / x[0], ":", color="0.5", label="n")
    axes.loglog(x, 0.02 * x * np.log(x) / (x[0] * np.log(x[0])), "--", color="0.5", label="n log n")
    figure.axes[1].set_ylim(0.1, 10.0)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right center", fontsize=8)
    return figure


def main() -> None:
    """Prints the table, and draws it where asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scans", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--out", type=Path, help="picture to write")
    parser.add_argument("--part", choices=list(PARTS), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part:
        run_part(arguments.part, arguments.folder, *arguments.scans)
        return
    found: dict[str, list[tuple[float, float]]] = {part: [] for part in arguments.only}
    for scans in arguments.scans:
        with tempfile.TemporaryDirectory() as name:
            make(Path(name), scans)
            for part in arguments.only:
                found[part].append(measured(part, Path(name), scans))
                seconds, size = found[part][-1]
                print(f"{scans:>7} scans: {part}: {seconds:.2f} s, {size:.2f} GB", flush=True)
    print("\n| | " + " | ".join(f"{scans:,} scans" for scans in arguments.scans) + " |")
    print("|---" * (1 + len(arguments.scans)) + "|")
    for part, rows in found.items():
        cells = [f"{seconds:.3g} s, {size:.2g} GB" for seconds, size in rows]
        print(f"| {part} | {' | '.join(cells)} |")
    if arguments.out:
        with matplotlib.rc_context({"svg.fonttype": "none"}):
            drawn(found, arguments.scans).savefig(arguments.out)


if __name__ == "__main__":
    main()
