"""Whole heads as they come off a scanner: native size, pose, orientation and voxels, with skull."""

import dataclasses
from collections.abc import Callable

import jax.numpy as jnp
import nibabel as nib
import numpy as np
import pandas as pd
from etils import epath

from mri_jax import files
from mri_jax.showing.simulated import WORD
from mri_jax.simulation.atrophy import atrophy
from mri_jax.simulation.people import SimulatedScan
from mri_jax.simulation.phantom import Phantom, head_size, template
from mri_jax.simulation.render import Original, Rendered, scanned
from mri_jax.simulation.sites import Site
from mri_jax.simulation.truth import write_nifti

# Field of view along X, Y, Z, and the template point at its centre, mm.
FIELD_OF_VIEW = (188.0, 240.0, 216.0)
CENTRE = (0.0, -18.0, 12.0)
# The template's signal in air, in units of its white matter; twice that is tissue.
AIR = 0.07
# SD of a head's turn (degrees) and shift (mm) in the scanner.
POSE = (3.0, 4.0)


@dataclasses.dataclass(frozen=True)
class Head:
    """One raw scan.

    Attributes:
      rendered: Volume (int16) and mask in the scanner's orientation, and what is known of them.
      affine: (4, 4) voxels to scanner coordinates, RAS+ mm.
    """

    rendered: Rendered
    affine: np.ndarray


def head_channels(phantom: Phantom) -> np.ndarray:
    """Returns (X, Y, Z, 6) float32: `Phantom.channels` and what lies outside the brain."""
    # The template's air has its scanners' noise; ours comes from the simulated scanner alone.
    tissue = ((phantom.head - AIR) / AIR).clip(0, 1)
    outside = phantom.head * tissue * (1 - phantom.mask)
    channels = np.concatenate([phantom.channels(), outside[..., None]], axis=-1)
    # Sampling repeats the border's value; beyond the template's box there shall be air.
    air = np.zeros_like(channels)
    air[1:-1, 1:-1, 1:-1] = channels[1:-1, 1:-1, 1:-1]
    return air


def native_grid(site: Site) -> tuple[tuple[int, int, int], np.ndarray]:
    """Shape of a site's raw scans and their (4, 4) affine to scanner coordinates, both RAS+."""
    x, y, z = (round(size / step) for size, step in zip(FIELD_OF_VIEW, site.voxel, strict=True))
    affine = np.diag([*site.voxel, 1.0])
    affine[:3, 3] = -(np.array([x, y, z]) - 1) / 2 * site.voxel
    return (x, y, z), affine


def pose(scan: SimulatedScan) -> np.ndarray:
    """Returns (4, 4) from scanner coordinates to the template's: head size, turn and shift, mm."""
    rng = np.random.default_rng([scan.scan_seed, 4])
    degrees, shift = POSE
    turn = _rotation(np.radians(degrees) * rng.standard_normal(3))
    scale = head_size(scan.intracranial_ml) ** (1 / 3)
    to_scanner = np.eye(4)
    to_scanner[:3, :3] = scale * turn
    to_scanner[:3, 3] = shift * rng.standard_normal(3) - scale * turn @ np.array(CENTRE)
    return np.linalg.inv(to_scanner)


def _rotation(angles: np.ndarray) -> np.ndarray:
    """Returns (3, 3) rotation about X, then Y, then Z (radians)."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles), np.sin(angles)
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


def head_renderer() -> Callable[[SimulatedScan], Head]:
    """Returns a function that makes one head; compiled once a site, safe to call from threads."""
    phantom = template()
    original = Original(atrophy(), jnp.asarray(head_channels(phantom)), phantom.grid)

    def call(scan: SimulatedScan) -> Head:
        shape, affine = native_grid(scan.site)
        made = scanned(scan, original, scan.targets, pose(scan) @ affine, shape, scan.site.voxel)
        stored = np.rint(made.volume).clip(0, 32767).astype(np.int16)
        volume, turned = oriented(stored, affine, scan.site.orientation)
        mask, _ = oriented(made.mask, affine, scan.site.orientation)
        return Head(dataclasses.replace(made, volume=volume, mask=mask), turned)

    return call


def oriented(volume: np.ndarray, affine: np.ndarray, codes: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns an RAS+ volume stored along other axes, and the affine that keeps its place."""
    change = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(codes)
    )
    turned = nib.orientations.apply_orientation(volume, change)
    return turned, affine @ nib.orientations.inv_ornt_aff(change, volume.shape)


def write_head(path: epath.PathLike, head: Head, scan: SimulatedScan) -> None:
    """Write the sidecar, then the image; equal heads give equal bytes."""
    sidecar = {
        "Manufacturer": WORD,
        "MagneticFieldStrength": scan.site.field_strength,
        "Modality": "MR",
    }
    target = epath.Path(path)
    files.write_json(target.parent / target.name.replace(".nii.gz", ".json"), sidecar)
    write_nifti(target, head.rendered.volume, head.affine, space="scanner")


def write_description(tree: epath.Path, rows: pd.DataFrame) -> None:
    """Write what BIDS asks for beside the images of one cohort.

    Args:
      tree: Folder of the cohort.
      rows: Its rows of the cohort table.
    """
    description = {
        "Name": f"{WORD} {tree.name}",
        "BIDSVersion": "1.9.0",
        "DatasetType": "raw",
        "GeneratedBy": [{"Name": "mri_jax simulate"}],
    }
    people = pd.DataFrame(
        {
            "participant_id": "sub-" + rows["subject_id"],
            "age": rows["age"],
            "sex": rows["sex"],
            "diagnosis": rows["diagnosis"],
        }
    )
    files.write_json(tree / "dataset_description.json", description)
    files.write_text(tree / "README", f"{WORD} heads: no real person was scanned.\n")
    text = people.to_csv(sep="\t", index=False, lineterminator="\n")
    files.write_text(tree / "participants.tsv", text)
