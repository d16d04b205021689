"""Heads made from the packaged template, small enough to be fast; unequal dimensions."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from mri_jax.volumes.resampling import Image, coarsen, pull
from mri_jax.volumes.templates import Template, load_template


@pytest.fixture(scope="session")
def template() -> Template:
    return load_template()


@pytest.fixture(scope="session")
def head(template) -> Image:
    """The template's head at 4 mm (49, 58, 49), so that one scan takes a second or two."""
    return coarsen(Image(template.head, template.affine), 4.0)


@pytest.fixture(scope="session")
def stripped(template) -> Image:
    """The same without skull."""
    return coarsen(Image(template.head * template.mask, template.affine), 4.0)


@pytest.fixture
def write():
    """Write an image as NIfTI with both forms set; returns its path."""

    def to(path: Path, image: Image, dtype=np.int16) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        made = nib.Nifti1Image(np.asarray(np.round(image.data), dtype), image.affine)
        made.set_qform(image.affine, code=1)
        made.set_sform(image.affine, code=1)
        nib.save(made, path)
        return path

    return to


@pytest.fixture(scope="session")
def moved(template):
    """A head moved by a known affine: (image, the affine from template mm to its mm)."""

    def to(angles, shift, scale, spacing=3.0, stripped=False) -> tuple[Image, np.ndarray]:
        matrix = np.eye(4)
        matrix[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() * scale
        matrix[:3, 3] = template.centre - matrix[:3, :3] @ template.centre + shift
        affine = np.diag([spacing] * 3 + [1.0])
        affine[:3, 3] = template.centre + shift - spacing * np.array([41, 48, 44])
        data = template.head * template.mask if stripped else template.head
        source = Image(data, matrix @ template.affine)
        return Image(np.maximum(pull(source, affine, (83, 97, 89)), 0), affine), matrix

    return to
