"""Ways to put one person, or one scan, on both sides of a study: tables and stores that stop it.

Each attempt takes two cohorts of people who are all different and gives one person of the source a
second id, or one scan of the source a second place. What stops a study is one line that names both
ids. `ATTEMPTS` and `make_attempt` serve every door: a study's gate, `launch.py`, `cohort check`.
"""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import ndimage

from mri_jax import files
from mri_jax.cohort.table import write_table
from mri_jax.volumes.grids import Grid
from mri_jax.volumes.store import StoreInfo, StoreWriter, VolumeStore

# The least that all five poolings of the CNN can be applied to.
GRID = Grid("tiny", (32, 36, 32), 5.0, (-77.5, -87.5, -77.5))
COHORTS = ("ADNI1", "ADNI2")
Scan = tuple[np.ndarray, np.ndarray]


def head(person: int, shape: tuple[int, int, int] = GRID.shape, detail: float = 1.5) -> Scan:
    """A volume (X, Y, Z) float32 and its bool mask: an ellipsoid, common and own structures."""
    centres = [np.linspace(-1, 1, size) for size in shape]
    x, y, z = np.meshgrid(*centres, indexing="ij")
    mask = (x / 0.72) ** 2 + (y / 0.8) ** 2 + (z / 0.72) ** 2 < 1
    common, own = (
        ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), detail)
        for seed in (10**6, person)
    )
    fields = [field / field[mask].std() for field in (common + common[::-1], own)]
    return np.where(mask, 100 + 12 * fields[0] + 12 * fields[1], 0).astype(np.float32), mask


def noisy(scan: Scan, amount: float, everywhere: bool = False) -> Scan:
    """With noise of ``amount`` times 100."""
    volume, mask = scan
    noise = np.random.default_rng(7).normal(0, 100 * amount, volume.shape)
    return volume + noise * (1.0 if everywhere else mask), mask


def moved(scan: Scan, matrix: np.ndarray, shift: tuple[float, float, float] = (0, 0, 0)) -> Scan:
    """Turned, scaled or shifted about the centre, by linear interpolation."""
    centre = (np.array(scan[0].shape) - 1) / 2
    offset = centre - matrix @ (centre + np.array(shift))
    there = [
        ndimage.affine_transform(each.astype(np.float32), matrix, offset, order=1) for each in scan
    ]
    return np.where(there[1] > 0.5, there[0], 0), there[1] > 0.5


def turned(scan: Scan, degrees: float) -> Scan:
    """Turned about the axis from front to back."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return moved(scan, np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]))


def _one_voxel(scan: Scan) -> Scan:
    volume = scan[0].copy()
    volume[tuple(size // 2 for size in volume.shape)] += 50
    return volume, scan[1]


def _coarse(scan: Scan) -> Scan:
    """To three quarters of the resolution and back."""
    volume, mask = scan
    small = ndimage.zoom(volume, 0.75, order=1)
    back = ndimage.zoom(small, np.array(volume.shape) / small.shape, order=1)
    return np.where(mask, back, 0), mask


def _biased(scan: Scan) -> Scan:
    x, y, _ = np.meshgrid(*[np.linspace(-1, 1, size) for size in scan[0].shape], indexing="ij")
    return scan[0] * np.exp(0.25 * x - 0.2 * y), scan[1]


IMAGES: dict[str, Callable[[Scan], Scan]] = {
    "equal": lambda s: s,
    "one voxel": _one_voxel,
    "mirrored": lambda s: (s[0][::-1], s[1][::-1]),
    "mirrored, mask not": lambda s: (_one_voxel(s)[0][::-1], s[1]),
    "shifted by a voxel": lambda s: (np.roll(s[0], 1, 0), np.roll(s[1], 1, 0)),
    "shifted by two": lambda s: (np.roll(s[0], -2, 1), np.roll(s[1], -2, 1)),
    "shifted, mask not": lambda s: (np.roll(s[0], (1, -1), (0, 2)), s[1]),
    "shifted by half": lambda s: moved(s, np.eye(3), (0.5, 0.5, 0.5)),
    "resampled smaller": lambda s: moved(s, np.eye(3) * 1.06),
    "resampled larger": lambda s: moved(s, np.eye(3) * 0.94),
    "resampled coarser": _coarse,
    "turned": lambda s: turned(s, 3),
    "noised": lambda s: noisy(s, 0.05),
    "noised everywhere": lambda s: noisy(s, 0.05, everywhere=True),
    "brightened": lambda s: (s[0] * 1.4, s[1]),
    "brightened by a constant": lambda s: (s[0] + 30 * s[1], s[1]),
    "gamma": lambda s: (100 * (s[0] / 100) ** 0.7, s[1]),
    "coil": _biased,
    "mask cut": lambda s: (s[0] * ndimage.binary_erosion(s[1]), ndimage.binary_erosion(s[1])),
    "mask grown": lambda s: (s[0] + np.float32(0.01) * s[1], ndimage.binary_dilation(s[1])),
    "mirrored, shifted, noised, brightened": lambda s: (
        np.roll(noisy(s, 0.03)[0][::-1] * 1.2, 1, 1), np.roll(s[1][::-1], 1, 1)
    ),
}  # fmt: skip

# The id of the source's person, and the same person's id in the second place.
IDS: tuple[tuple[str, str], ...] = (
    ("P0777", "p0777"), ("P0777", "P-0777"), ("P_0777", "P-0777"), ("P0777", "P 0777"),
    ("P0777", "P777"), ("0777", "777"), ("sub-0777", "0777"), ("P0777", "sub-P0777"),
    ("P0777", "SUB-P0777"), ("P0777", "Ｐ０７７７"), ("José777", "Jose\u0301777"),
    ("P0777", "Р0777"), ("P0777", "P\u00ad0777"), ("P0777", "P\u200b0777"),
    ("P0777", "P0777\u200b"), ("P\u00a00777", "P 0777"), ("sub-0777", "sub-0777_ses-02"),
    ("P0777", "P0777_m12"), ("P0777", "P0777_bl"), ("P0777", "P0777_followup"), ("0777", "777.0"),
    ("P0777", "ADNI2-P0777"), ("P0777", "ADNI2_P0777"), ("777", "ADNI1-0777"),
    ("002_S_0777", "002-S-0777"), ("002_S_0777", "2_S_0777"), ("002_S_0777", "777"),
    ("002_S_0777", "ADNI_002_S_0777"), ("002_S_0777", "002_S_0777_m12"),
    ("002_S_0777", "sub-ADNI002S0777"), ("002_S_0777", "0777"), ("AIBL777", "777"),
)  # fmt: skip


@dataclass(frozen=True)
class Attempt:
    """One attempt.

    Attributes:
      name: What is tried.
      ids: What the line that stops a study must contain.
    """

    name: str
    ids: tuple[str, str]


def _named() -> dict[str, Attempt]:
    found = [Attempt(f"id {a!a} and {b!a}", (a, b)) for a, b in IDS]
    for image in IMAGES:
        for place, second in (("target", "ADNI2-006"), ("source", "ADNI1-006")):
            found.append(Attempt(f"image {image} in the {place}", ("ADNI1-004", second)))
    found.append(Attempt("raw image in the target", ("ADNI1-004", "ADNI2-006")))
    return {attempt.name: attempt for attempt in found}


ATTEMPTS = _named()


def make_base(folder: Path, subjects: int = 15) -> Path:
    """Write the two cohorts without any leak, ``cohort.csv`` and ``store``; returns the folder.

    Args:
      folder: Where.
      subjects: AD, and as many CN, a cohort.
    """
    info = StoreInfo(GRID, "float16", simulated=True, settings={"made": "leaks"}, provenance={})
    writer = StoreWriter(folder / "store", info)
    rows, index = [], []
    for c, cohort in enumerate(COHORTS):
        for i in range(2 * subjects):
            row = {"subject_id": f"{cohort}-{i:03d}", "session_id": "bl", "cohort": cohort}
            raw = files.sha256_of_bytes(f"{cohort} {i}".encode())
            index.append(writer.add(*row.values(), *head(1000 * c + i)) | {"input_sha256": raw})
            facts = {"diagnosis": ("AD", "CN")[i % 2], "age": 70.0, "sex": "F", "image": ""}
            rows.append(row | facts)
    writer.write_index(pd.DataFrame(index))
    write_table(folder / "cohort.csv", pd.DataFrame(rows))
    return folder


def make_attempt(base: Path, folder: Path, name: str) -> tuple[Path, Path]:
    """Write the cohort table and the store of an attempt; returns their paths.

    Args:
      base: Of `make_base`; its files are linked, not copied.
      folder: Where; must not exist.
      name: A key of `ATTEMPTS`.
    """
    shutil.copytree(base, folder, copy_function=os.link)
    ids, store = ATTEMPTS[name].ids, VolumeStore(folder / "store")
    index = store.index.reset_index(drop=True)
    table = pd.read_csv(folder / "cohort.csv", keep_default_na=False)
    if name.startswith("id "):
        names = {"ADNI1-004": ids[0], "ADNI2-006": ids[1]}
        index, table = (f.assign(subject_id=f["subject_id"].replace(names)) for f in (index, table))
    else:
        first, second = (index.index[index["subject_id"] == own][0] for own in ids)
        if name.startswith("raw"):
            index.loc[second, "input_sha256"] = index.loc[first, "input_sha256"]
        else:
            change = IMAGES[name.removeprefix("image ").rsplit(" in the ", 1)[0]]
            writer = StoreWriter(store.path, store.info)
            key = index.loc[second, ["subject_id", "session_id", "cohort"]]
            added = writer.add(*key, *change(head(4)))
            index.loc[second, list(added)] = list(added.values())
    files.write_csv(store.path / "index.csv", index)
    files.write_csv(folder / "cohort.csv", table)
    return folder / "cohort.csv", store.path
