"""What is known of simulated cohorts beyond what a study sees: a table and maps."""

import gzip
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
from etils import epath

from mri_jax import files
from mri_jax.showing.simulated import WORD
from mri_jax.simulation.people import RATIO_AT_STAGE_1, SimulatedScan
from mri_jax.simulation.phantom import phantom_on, template_ml
from mri_jax.simulation.regions import REGIONS
from mri_jax.simulation.render import Rendered
from mri_jax.simulation.scanner import scanner_of
from mri_jax.volumes.grids import Grid

COLUMNS = (
    "subject_id",
    "session_id",
    "cohort",
    "diagnosis",
    "first_seen_in",
    "age",
    "sex",
    "stage",
    *(f"{name}_ml" for name in REGIONS),
    *(f"{name}_target_ml" for name in REGIONS),
    "intracranial_ml",
    "residual_warp_mm",
    "minimum_jacobian",
    "contrast_csf",
    "contrast_gm",
    "contrast_wm",
    "bias_sd",
    "noise",
    "blur_x_mm",
    "blur_y_mm",
    "blur_z_mm",
    "gamma",
    "gain",
)


def truth_row(scan: SimulatedScan, rendered: Rendered) -> dict[str, Any]:
    """Returns a row of ``truth.csv`` (`COLUMNS`); regional volumes in template space, mL."""
    scanner = scanner_of(scan)
    wanted = np.array(template_ml()) * np.exp(scan.targets)
    numbers = {
        "stage": scan.stage,
        **{f"{n}_ml": v for n, v in zip(REGIONS, rendered.volumes_ml, strict=True)},
        **{f"{n}_target_ml": v for n, v in zip(REGIONS, wanted, strict=True)},
        "intracranial_ml": scan.intracranial_ml,
        "residual_warp_mm": rendered.residual_warp_mm,
        "minimum_jacobian": rendered.minimum_jacobian,
        **{f"contrast_{n}": v for n, v in zip(("csf", "gm", "wm"), scanner.contrast, strict=True)},
        "bias_sd": np.std(scanner.bias),
        "noise": scanner.noise,
        **{f"blur_{n}_mm": v for n, v in zip("xyz", scanner.resolution, strict=True)},
        "gamma": scanner.gamma,
        "gain": scanner.gain,
    }
    return {
        "subject_id": scan.subject_id,
        "session_id": scan.session_id,
        "cohort": scan.cohort,
        "diagnosis": scan.diagnosis,
        "first_seen_in": scan.home,
        "age": scan.age,
        "sex": scan.sex,
        **{name: float(f"{float(value):.6g}") for name, value in numbers.items()},
    }


def write_maps(folder: epath.PathLike, grid: Grid) -> None:
    """Write where disease acts, on the grid of the volumes.

    ``effect_REGION.nii.gz`` (membership 0 to 1), ``effect_union.nii.gz`` (their sum),
    ``effect_strength.nii.gz`` (absolute change of log volume at stage 1), ``labels.nii.gz`` (the
    region of most membership where that exceeds a half, else 0), ``brain_mask.nii.gz`` and
    ``labels.csv``.
    """
    phantom = phantom_on(grid)
    folder = epath.Path(folder)
    change = np.abs(np.log(RATIO_AT_STAGE_1))
    maps = {f"effect_{name}": region for name, region in zip(REGIONS, phantom.regions, strict=True)}
    maps["effect_union"] = phantom.regions.sum(0)
    maps["effect_strength"] = np.tensordot(change, phantom.regions, 1)
    for name, values in maps.items():
        write_nifti(folder / f"{name}.nii.gz", values.astype(np.float32), grid.affine)
    labels = np.where(phantom.regions.sum(0) > 0.5, phantom.regions.argmax(0) + 1, 0)
    write_nifti(folder / "labels.nii.gz", labels.astype(np.int16), grid.affine)
    mask = phantom.mask > 0.5
    write_nifti(folder / "brain_mask.nii.gz", mask.astype(np.uint8), grid.affine)
    table = pd.DataFrame(
        {
            "label": np.arange(1, len(REGIONS) + 1),
            "region": REGIONS,
            "volume_ml": phantom.volumes_ml().round(3),
            "ratio_at_stage_1": RATIO_AT_STAGE_1,
        }
    )
    files.write_csv(folder / "labels.csv", table)


def write_nifti(
    path: epath.PathLike, values: np.ndarray, affine: np.ndarray, space: str = "mni"
) -> None:
    """Write (X, Y, Z) values as gzipped NIfTI in mm; equal content gives equal bytes.

    Args:
      path: The file.
      values: Any type that NIfTI knows.
      affine: (4, 4) voxels to ``space``, RAS+ mm.
      space: ``mni`` or ``scanner``.
    """
    volume = nib.Nifti1Image(values, affine)
    volume.header.set_xyzt_units("mm")
    volume.header["descrip"] = WORD
    volume.set_sform(affine, code=space)
    volume.set_qform(affine, code=space)
    files.write_bytes(path, gzip.compress(volume.to_bytes(), compresslevel=4, mtime=0))
