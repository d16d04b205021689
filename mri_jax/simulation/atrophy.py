"""Velocity fields that change the volume of one region each, and how strongly they do so."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from scipy import fft, ndimage

from mri_jax.simulation import warp
from mri_jax.simulation.phantom import Phantom, phantom_on
from mri_jax.simulation.regions import HIPPOCAMPUS, REGIONS, VENTRICLES
from mri_jax.volumes.grids import Grid

# Deformations live on this grid (the brain's box) whatever the grid of the volumes, so that a
# subject's anatomy and its truth do not depend on the resolution asked for.
WARP_GRID = Grid("warp", (55, 67, 57), 3.0, (-81.0, -115.0, -81.0))
# Within this reach (mm) of each region fluid fills what shrinks, or white matter yields.
REACH = (6.0, 6.0, 9.0, 9.0, 40.0)
# How far space outside the mask counts as room, against fluid inside it.
OUTSIDE = 0.3
# Amplitude at which the response's slope is measured; change of log volume for its bend.
_SMALL, _LARGE = 0.1, 0.6


@dataclasses.dataclass(frozen=True)
class Atrophy:
    """The regions and their fields on `WARP_GRID`.

    Attributes:
      regions: (X, Y, Z, 5) membership.
      mask: (X, Y, Z) fraction inside the skull.
      fields: (5, X, Y, Z, 3) velocities in voxels; a positive amplitude shrinks its region.
      volumes: (5,) volumes of the template's regions, mL.
      inverse: (5, 5) matrix from wanted changes of log volume to amplitudes, to first order.
      bend: (5,) how much more amplitude a region's own change needs, relative to that change.
    """

    regions: Array
    mask: Array
    fields: Array
    volumes: Array
    inverse: Array
    bend: Array

    def amplitudes(self, changes: Array) -> Array:
        """Returns (5,) amplitudes that change log volumes about so much."""
        return self.inverse @ (changes + self.bend * changes**2)


jax.tree_util.register_dataclass(Atrophy)


def divergence_field(source: np.ndarray) -> np.ndarray:
    """Returns the gradient field whose divergence is a source.

    Args:
      source: (X, Y, Z) wanted divergence; its sum must vanish.

    Returns:
      (X, Y, Z, 3) field in voxels: the gradient of the solution of Poisson's equation with
      Neumann borders, by the discrete cosine transform.
    """
    modes = [2 * np.cos(np.pi * np.arange(n) / n) - 2 for n in source.shape]
    eigenvalues = modes[0][:, None, None] + modes[1][None, :, None] + modes[2][None, None, :]
    eigenvalues[0, 0, 0] = 1.0
    spectrum = fft.dctn(source, type=2) / eigenvalues
    spectrum[0, 0, 0] = 0.0
    potential = fft.idctn(spectrum, type=2)
    return np.stack(np.gradient(potential), axis=-1).astype(np.float32)


def balanced_source(phantom: Phantom, region: int) -> np.ndarray:
    """Returns (X, Y, Z) a region's membership less what makes room for it, close to its own.

    Shrinking tissue leaves fluid: sulci, cisterns, the temporal horn beside the hippocampus, and
    what lies outside the mask where that hugs the brain; not the bodies of the ventricles. Growing
    ventricles press on white matter, which is where brains with large ventricles lack volume.
    """
    density = ndimage.gaussian_filter(phantom.regions[region], 0.6)
    if region == VENTRICLES:
        room = phantom.tissue[2]
    else:
        room = phantom.tissue[0] - phantom.regions[VENTRICLES] + OUTSIDE * (1 - phantom.mask)
        if region == HIPPOCAMPUS:
            room = room + phantom.regions[VENTRICLES]
    reach = REACH[region] / phantom.grid.spacing
    room = ndimage.gaussian_filter(room.clip(0), 0.6)
    supply = ndimage.gaussian_filter(room, reach)
    balance = room * ndimage.gaussian_filter(density / np.maximum(supply, 1e-3), reach)
    return density - balance * (density.sum() / balance.sum())


def log_volumes(atrophy_regions: Array, displacement: Array) -> Array:
    """Returns (5,) log of regional volumes (mL) after a deformation of the warp grid."""
    here = warp.lattice(displacement.shape[:3])
    moved = warp.sample(atrophy_regions, here + displacement).reshape(-1, len(REGIONS))
    # A product with ones, not a sum: XLA would fuse a sum with the gathers, ten times slower.
    total = jnp.ones(len(moved)) @ moved
    return jnp.log(total * (WARP_GRID.spacing**3 / 1000))


@functools.lru_cache(maxsize=1)
def atrophy() -> Atrophy:
    """Fields and their response, measured by deforming the template with each in turn."""
    phantom = phantom_on(WARP_GRID)
    fields = jnp.stack([divergence_field(balanced_source(phantom, k)) for k in range(len(REGIONS))])
    regions = jnp.asarray(np.moveaxis(phantom.regions, 0, -1))

    @jax.jit
    def response(amplitudes: Array) -> Array:
        velocity = jnp.tensordot(amplitudes, fields, 1)
        return log_volumes(regions, warp.exponential(velocity))

    def responses(sizes: np.ndarray) -> np.ndarray:
        return np.stack([np.asarray(response(p)) for p in np.diag(sizes).astype(np.float32)], 1)

    small = np.full(len(REGIONS), _SMALL)
    up, down = responses(small), responses(-small)
    slopes = (up - down) / (2 * _SMALL)
    own = np.diag(slopes)
    up, down = responses(_LARGE / own), responses(-_LARGE / own)
    middle = np.diag(up + down) / 2 - np.log(phantom.volumes_ml())
    return Atrophy(
        regions=regions,
        mask=jnp.asarray(phantom.mask),
        fields=fields,
        volumes=jnp.asarray(phantom.volumes_ml(), jnp.float32),
        inverse=jnp.asarray(np.linalg.inv(slopes), jnp.float32),
        bend=jnp.asarray(-middle / _LARGE**2, jnp.float32),
    )
