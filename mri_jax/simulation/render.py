"""From a scan's names to its volume: one compiled function, the same for every subject."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mri_jax.backend import FEW_PASSES
from mri_jax.keys import key_data, typed_key
from mri_jax.simulation import warp
from mri_jax.simulation.atrophy import WARP_GRID, Atrophy, atrophy, log_volumes
from mri_jax.simulation.people import SimulatedScan
from mri_jax.simulation.phantom import phantom_on
from mri_jax.simulation.scanner import Scanner, acquire, scanner_of, smooth_field
from mri_jax.volumes.grids import Grid

# Random shape: control points along X, Y, Z and SD (mm) of the velocity at each scale.
SHAPE_SCALES = (((8, 9, 8), 1.6), ((14, 16, 14), 1.1), ((24, 28, 24), 0.7))
# What affine registration leaves over: SD of rotation (degrees), shift (mm) and log scale.
REGISTRATION = (0.8, 0.5, 0.012)
# Newton steps towards the wanted volumes, each on a draft of the deformation of so many squarings.
DRAFTS = (3, 4, 5)


@dataclasses.dataclass(frozen=True)
class Rendered:
    """One scan, made.

    Attributes:
      volume: (X, Y, Z) intensities; 0 outside the mask but in whole heads.
      mask: (X, Y, Z) bool, inside the skull.
      volumes_ml: (5,) achieved volumes of the regions in template space.
      minimum_jacobian: Smallest determinant of the deformation.
      residual_warp_mm: Root mean square displacement inside the mask.
    """

    volume: np.ndarray
    mask: np.ndarray
    volumes_ml: np.ndarray
    minimum_jacobian: float
    residual_warp_mm: float


def registration_error(scan: SimulatedScan) -> np.ndarray:
    """Returns (4, 4) map from the volume's template coordinates to the subject's true ones, mm."""
    rng = np.random.default_rng([scan.scan_seed, 3])
    degrees, shift, scale = REGISTRATION
    x, y, z = np.radians(degrees) * rng.standard_normal(3)
    turn = np.array([[1, -z, y], [z, 1, -x], [-y, x, 1]])
    affine = np.eye(4)
    affine[:3, :3] = np.linalg.qr(turn)[0] * np.sign(np.diag(np.linalg.qr(turn)[1]))
    affine[:3, :3] *= np.exp(scale * rng.standard_normal(3))
    affine[:3, 3] = shift * rng.standard_normal(3)
    return affine


def shaped(parts: Atrophy, targets: Array, key: Array) -> tuple[Array, Array]:
    """Returns a person's deformation.

    Args:
      parts: Regions and fields.
      targets: (5,) wanted change of log volume against the template.
      key: Key of the person's own shape.

    Returns:
      (X, Y, Z, 3) displacement in voxels of the warp grid, and the (5,) achieved volumes in mL.
    """
    velocity = jnp.zeros(parts.fields.shape[1:])
    for scale, (knots, deviation) in enumerate(SHAPE_SCALES):
        values = jax.random.normal(jax.random.fold_in(key, scale), (*knots, 3))
        field = smooth_field(values, WARP_GRID.shape)
        velocity = velocity + deviation / WARP_GRID.spacing * field
    wanted = jnp.log(parts.volumes) + targets

    def displace(changes: Array, squarings: int) -> tuple[Array, Array]:
        total = velocity + jnp.tensordot(parts.amplitudes(changes), parts.fields, 1)
        displacement = warp.exponential(total, squarings)
        return displacement, log_volumes(parts.regions, displacement)

    changes = targets
    for squarings in DRAFTS:
        _, achieved = displace(changes, squarings)
        changes = changes + wanted - achieved
    displacement, achieved = displace(changes, warp.SQUARINGS)
    return displacement, jnp.exp(achieved)


def deformed(
    channels: Array, source: Grid, displacement: Array, affine: Array, shape: tuple[int, ...]
) -> Array:
    """Sample maps of the template at a subject's voxels, plane by plane so that memory stays flat.

    Args:
      channels: (X, Y, Z, C) maps on `source`.
      source: Their grid.
      displacement: In voxels of the warp grid.
      affine: (4, 4) from the subject's voxels to template coordinates before the deformation, mm.
      shape: (X, Y, Z) of the subject's volume.

    Returns:
      (X, Y, Z, C).
    """
    plane = warp.lattice((1, *shape[1:]))[0]

    def one(i: Array) -> Array:
        points = plane.at[..., 0].set(i) @ affine[:3, :3].T + affine[:3, 3]
        here = (points - jnp.array(WARP_GRID.origin)) / WARP_GRID.spacing
        points = points + WARP_GRID.spacing * warp.sample(displacement, here)
        return warp.sample(channels, (points - jnp.array(source.origin)) / source.spacing)

    return jax.lax.map(one, jnp.arange(shape[0], dtype=jnp.float32))


def signal_of(channels: Array, contrast: Array) -> Array:
    """Noiseless signal of (..., C) channels in the order of `phantom.CHANNELS`.

    A sixth channel is what lies outside the brain, in units of white matter.
    """
    beyond_tissue = channels[..., 3] + channels[..., 5:].sum(-1)
    return channels[..., :3] @ contrast + beyond_tissue * contrast[2]


def source_grid(grid: Grid) -> Grid:
    """Returns the grid on which the template is kept for sampling: twice as fine, at most 1 mm."""
    spacing = max(1.0, grid.spacing / 2)
    if spacing == grid.spacing:
        return grid
    factor = round(grid.spacing / spacing)
    x, y, z = (n * factor for n in grid.shape)
    x0, y0, z0 = (o - (factor - 1) / 2 * spacing for o in grid.origin)
    return Grid(f"{grid.name}-source", (x, y, z), spacing, (x0, y0, z0))


@dataclasses.dataclass(frozen=True)
class Original:
    """What every scan is made from.

    Attributes:
      parts: Regions and fields that change them.
      channels: (X, Y, Z, C) maps of the template, in the order of `phantom.CHANNELS`.
      grid: Where the maps lie.
    """

    parts: Atrophy
    channels: Array
    grid: Grid


@functools.lru_cache(maxsize=2)
def renderer(grid: Grid) -> Callable[[SimulatedScan], Rendered]:
    """Compile the rendering for a grid.

    Returns:
      A function of a scan; its result depends on the scan alone. Safe to call from several threads.
    """
    source = source_grid(grid)
    original = Original(atrophy(), jnp.asarray(phantom_on(source).channels()), source)

    def call(scan: SimulatedScan) -> Rendered:
        affine = registration_error(scan)
        # The volume in template space is what the targets speak of, registration error included.
        scale = np.linalg.det(affine[:3, :3])
        made = scanned(
            scan,
            original,
            scan.targets + np.log(scale),
            affine @ grid.affine,
            grid.shape,
            (grid.spacing,) * 3,
        )
        return dataclasses.replace(
            made,
            volume=np.where(made.mask, made.volume, np.float32(0)),
            volumes_ml=made.volumes_ml / np.float32(scale),
        )

    return call


def scanned(
    scan: SimulatedScan,
    original: Original,
    targets: np.ndarray,
    affine: np.ndarray,
    shape: tuple[int, int, int],
    voxel: tuple[float, ...],
) -> Rendered:
    """Returns a person's anatomy as a scanner sees it; compiled once for each shape and voxel.

    Args:
      scan: The person and the scanner.
      original: What the person is made from.
      targets: (5,) wanted change of log volume against the template.
      affine: (4, 4) from voxels to template coordinates before the deformation, mm.
      shape: (X, Y, Z) of the volume.
      voxel: Spacing along X, Y, Z, mm.

    Returns:
      The scan, with intensities outside the mask as well.
    """
    image, mask, volumes, jacobian, size = _compiled()(
        (original.parts, original.channels),
        (targets.astype(np.float32), affine.astype(np.float32)),
        scanner_of(scan),
        (typed_key(key_data(scan.anatomy_seed)), typed_key(key_data(scan.scan_seed))),
        original.grid,
        (shape, voxel),
    )
    return Rendered(
        volume=np.asarray(image),
        mask=np.asarray(mask),
        volumes_ml=np.asarray(volumes),
        minimum_jacobian=float(jacobian),
        residual_warp_mm=float(size),
    )


@functools.cache
def _compiled() -> Callable[..., tuple[Array, Array, Array, Array, Array]]:
    """Returns `_scanned` as a program for each shape and voxel."""
    options = FEW_PASSES if jax.default_backend() == "cpu" else None
    return jax.jit(_scanned, static_argnums=(4, 5), compiler_options=options)


def _scanned(
    original: tuple[Atrophy, Array],
    wanted: tuple[Array, Array],
    scanner: Scanner,
    keys: tuple[Array, Array],
    source: Grid,
    image_grid: tuple[tuple[int, int, int], tuple[float, ...]],
) -> tuple[Array, Array, Array, Array, Array]:
    """Returns volume, mask, achieved volumes, smallest Jacobian and size of the residual warp.

    Args:
      original: The parts that may shrink, and the template's channels.
      wanted: Targets of the parts, and the affine to the scan.
      scanner: The scanner.
      keys: Keys of the person's anatomy, and of the scan's noise.
      source: Grid of the template's channels.
      image_grid: Shape of the scan, and edge lengths of its voxels in mm.
    """
    (parts, channels), (targets, affine) = original, wanted
    (anatomy, noise), (shape, voxel) = keys, image_grid
    displacement, volumes = shaped(parts, targets, anatomy)
    maps = deformed(channels, source, displacement, affine, shape)
    image = acquire(signal_of(maps, scanner.contrast), scanner, voxel, noise)
    return (
        image,
        maps[..., 4] > 0.5,
        volumes,
        warp.jacobian_determinant(displacement).min(),
        root_mean_square(displacement, parts.mask),
    )


def root_mean_square(displacement: Array, mask: Array) -> Array:
    """Root mean square length (mm) of displacements of the warp grid inside a soft mask."""
    size = jnp.sum(displacement**2, axis=-1) * mask
    return WARP_GRID.spacing * jnp.sqrt(size.sum() / mask.sum())
