"""The page of quality control: one row of slices a scan, in one file that needs no network."""

import base64
import io
import json
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup
from PIL import Image as Pillow
from scipy import ndimage

from mri_jax.problems import counted
from mri_jax.showing import addresses, pages
from mri_jax.showing.simulated import BANNER, labelled
from mri_jax.volumes import outliers, quality
from mri_jax.volumes.grids import Grid
from mri_jax.volumes.resampling import Image, pull
from mri_jax.volumes.store import VolumeStore
from mri_jax.volumes.templates import Template

# Axis, template coordinate (mm) of the slices, and the millimetres of template space shown.
SLICES = ((0, -28.0), (0, 4.0), (1, -32.0), (1, 4.0), (2, -18.0), (2, 4.0), (2, 30.0))
BOX = ((-80.0, 80.0), (-114.0, 82.0), (-64.0, 92.0))
PIXEL = 1.25
OUTLINE = (70, 220, 235)


def row_of_slices(volume: np.ndarray, grid: Grid, outline: np.ndarray) -> np.ndarray:
    """Returns one picture of a scan.

    Args:
      volume: (X, Y, Z) intensities, 0 outside the brain.
      grid: Grid of the volume.
      outline: (X, Y, Z) bool, the template's brain on that grid.

    Returns:
      (H, W, 3) uint8: `SLICES` side by side. Left of the picture is left of the head; sagittal
      slices face right.
    """
    data = np.asarray(volume, np.float32)
    top = float(np.percentile(data[data > 0], 99.5)) if (data > 0).any() else 1.0
    tiles = []
    for axis, place in SLICES:
        across = [other for other in range(3) if other != axis]
        wide, high = (_coordinates(BOX[other]) for other in across)
        # Rows of the picture run from superior (or anterior) down.
        points = np.empty((3, len(high), len(wide)))
        points[axis] = place
        points[across[0]], points[across[1]] = wide[None, :], high[::-1, None]
        voxels = (points - np.reshape(grid.origin, (3, 1, 1))) / grid.spacing
        grey = ndimage.map_coordinates(data, voxels, order=1)
        inside = ndimage.map_coordinates(outline.astype(np.float32), voxels, order=1) > 0.5
        edge = inside & ~ndimage.binary_erosion(inside)
        tile = np.repeat(np.clip(grey / top * 255, 0, 255).astype(np.uint8)[..., None], 3, axis=2)
        tile[edge] = OUTLINE
        tiles.append(tile)
    height = max(tile.shape[0] for tile in tiles)
    padded = [
        np.pad(t, (((height - t.shape[0]) // 2, -(-(height - t.shape[0]) // 2)), (2, 2), (0, 0)))
        for t in tiles
    ]
    return np.concatenate(padded, axis=1)


def _is_rigid(store: VolumeStore) -> bool:
    return store.info.settings.get("registration") == "rigid"


def _coordinates(limits: tuple[float, float]) -> np.ndarray:
    return np.arange(limits[0], limits[1] + PIXEL / 2, PIXEL)


def pictures(store: VolumeStore, template: Template) -> Iterator[str]:
    """Yields the picture of each row of the index, as WebP in base64.

    The outline is the template's brain; where registration is rigid, and brains keep their size,
    the scan's own mask.
    """
    grid = store.info.grid
    brain = pull(Image(template.mask, template.affine), grid.affine, grid.shape) > 0.5
    for key in store.index.index:
        buffer = io.BytesIO()
        outline = np.asarray(store.mask(*key)) if _is_rigid(store) else brain
        row = row_of_slices(store.volume(*key), grid, outline)
        Pillow.fromarray(row).save(buffer, "WEBP", quality=60, method=2)
        yield addresses.encoded(buffer.getvalue())


def page(
    store: VolumeStore,
    images: Iterable[str],
    decisions: pd.DataFrame | None = None,
    index: pd.DataFrame | None = None,
) -> str:
    """Returns the HTML of the page.

    Args:
      store: Whose scans are shown.
      images: From `pictures`, one a row of the index.
      decisions: Earlier decisions, shown as marks.
      index: The store's index, if more is known of its scanners than the store says.
    """
    data = _data(store, images, decisions, store.index if index is None else index)
    # "</script>" inside an identifier must not end the element.
    text = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    title = f"Quality control: {store.path.name}"
    heading = f"{title}, {counted(len(data['scans']), 'scan')}, grid {store.info.grid.name}"
    return pages.render(
        "volumes/qc.html.j2",
        title=title,
        heading=labelled(heading, store.info.simulated),
        banner=BANNER if store.info.simulated else "",
        interactive=True,
        data=Markup(text),
    )


def _data(
    store: VolumeStore,
    images: Iterable[str],
    decisions: pd.DataFrame | None,
    index: pd.DataFrame,
) -> dict[str, Any]:
    """Returns what the page's script reads, as JSON types."""
    index = index.reset_index(drop=True)
    groups = outliers.groups_of(index)
    flagged, suspicion = outliers.flags(index, groups), outliers.suspicion(index, groups)
    named = [name for name in quality.FIGURES if name in index]
    numbers = {name: pd.to_numeric(index[name], errors="coerce") for name in named}
    scans = []
    size = (0, 0)
    for i, image in enumerate(images):
        if i == 0:
            size = Pillow.open(io.BytesIO(base64.b64decode(image))).size
        scans.append(
            {
                "subject_id": index["subject_id"][i],
                "session_id": index["session_id"][i],
                "cohort": index["cohort"][i],
                "group": int(groups.of_row[i]),
                "flags": flagged[i],
                "suspicion": round(float(suspicion[i]), 3),
                "figures": {n: _number(numbers[n][i]) for n in named},
                "image": image,
            }
        )
    return {
        "store": store.path.name,
        "fingerprint": store.info.fingerprint[:16],
        "image_size": size,
        "rigid": _is_rigid(store),
        "figures": [
            {
                "name": name,
                "meaning": quality.FIGURES[name][0],
                "side": quality.FIGURES[name][1],
            }
            for name in named
        ],
        "groups": [
            {
                "text": group.describe(),
                "medians": {n: _number(middle) for n, (middle, _) in group.middles.items()},
                "limits": {n: _limit(n, group.bounds[n]) for n in named if n in group.bounds},
            }
            for group in groups.groups
        ],
        "decisions": _marks(decisions),
        "scans": scans,
    }


def _limit(name: str, bounds: tuple[float, float]) -> str:
    """Returns a figure's limits in words: ``0.45 or more``, ``800 to 2200``; empty without."""
    side = quality.FIGURES[name][1]
    low = "" if side == "high" or not np.isfinite(bounds[0]) else f"{bounds[0]:.4g}"
    high = "" if side == "low" or not np.isfinite(bounds[1]) else f"{bounds[1]:.4g}"
    if low and high:
        return f"{low} to {high}"
    return f"{low} or more" if low else f"at most {high}" if high else ""


def _number(value: float) -> float | None:
    return None if not np.isfinite(value) else float(f"{round(value, 4):.4g}")


def _marks(decisions: pd.DataFrame | None) -> dict[str, Any]:
    if decisions is None:
        return {}
    rows = decisions.fillna("").astype(str).to_dict("records")
    names = ("decision", "reason", "rater", "date")
    return {
        f"{row['subject_id']}\0{row['session_id']}": {name: row.get(name, "") for name in names}
        for row in rows
    }
