"""The methods behind one face: a network and a volume in, a map in template space out."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import jax.numpy as jnp
import numpy as np

from mri_jax.errors import UserError
from mri_jax.explanation import attention, gradcam, gradients, occlusion, windows
from mri_jax.explanation.score import ScoredNetwork
from mri_jax.models import CNNSpec
from mri_jax.problems import counted
from mri_jax.volumes.grids import Grid

METHODS = (
    "gradient-input",
    "integrated-gradients",
    "grad-cam",
    "occlusion-patch",
    "occlusion-region",
    "attention",
)
BASELINES = ("background", "mean")
# Voxels of all volumes that one program holds at a time; a gradient needs about 250 bytes a voxel.
_VOXELS = 1_100_000
_PATCHES = 32


class Explained(NamedTuple):
    """What a method says of one volume and one network.

    Attributes:
      map: (X, Y, Z) float32 on the grid of the volumes, in units of the score; sums of voxels are
        what a region or patch contributes.
      units: (U,) the values that can vary on their own: voxels of the brain, patches or regions.
      error: Completeness error where the method has one, else NaN.
    """

    map: np.ndarray
    units: np.ndarray
    error: float


class AttributionMethod(Protocol):
    """A way to explain a score."""

    @property
    def name(self) -> str:
        """Of `METHODS`."""
        ...

    @property
    def note(self) -> str:
        """How it was set, for the page."""
        ...

    def explain(self, network: ScoredNetwork, volume: np.ndarray) -> Explained:
        """Explain the score of a volume (X, Y, Z, 1)."""
        ...


@dataclass(frozen=True, eq=False)
class Background:
    """What the explained scans are set against.

    Attributes:
      mean: (X, Y, Z, 1) float32, the mean normalised volume of the cohort.
      brain: (X, Y, Z) bool: inside the brain of at least half of its scans.
      reach: (X, Y, Z) bool: inside the brain of any scan.
      constant: The value outside the brain of every volume.
    """

    mean: np.ndarray
    brain: np.ndarray
    reach: np.ndarray
    constant: float


@dataclass(frozen=True)
class MethodSettings:
    """What a user chooses about the methods.

    Attributes:
      baseline: Baseline of the gradient methods: ``background`` (the constant outside the brain) or
        ``mean`` (the cohort's mean volume).
      steps: Points on the path of integrated gradients.
      block: The block that Grad-CAM and attention show; 0 takes the deepest with at least 6 voxels
        a side.
      patch_mm: Edge of an occluded patch, rounded to 2, 4, 8, ... voxels.
    """

    baseline: str = "background"
    steps: int = 32
    block: int = 0
    patch_mm: float = 16.0

    def __post_init__(self):
        if self.baseline not in BASELINES:
            raise UserError(f"baseline: {self.baseline!r} is not one of {', '.join(BASELINES)}")
        if self.steps < 1:
            raise UserError(f"steps: {self.steps} must be at least 1")
        if not self.patch_mm > 0:
            raise UserError(f"patch: {self.patch_mm} must be a positive number of mm")


@dataclass(frozen=True, eq=False)
class GradientInput:
    """Gradient x (input - baseline)."""

    baseline: np.ndarray
    brain: np.ndarray
    note: str
    name: str = "gradient-input"

    def explain(self, network: ScoredNetwork, volume: np.ndarray) -> Explained:
        """See `AttributionMethod`."""
        found = gradients.gradient_times_input(*network, volume[None], self.baseline)
        values = np.asarray(found, np.float32)[0, ..., 0]
        return Explained(values, values[self.brain], float("nan"))


@dataclass(frozen=True, eq=False)
class IntegratedGradients:
    """Integrated gradients from a baseline."""

    baseline: np.ndarray
    brain: np.ndarray
    steps: int
    chunk: int
    note: str
    name: str = "integrated-gradients"

    def explain(self, network: ScoredNetwork, volume: np.ndarray) -> Explained:
        """See `AttributionMethod`."""
        found, error = gradients.integrated_gradients(
            network, volume, self.baseline, self.steps, self.chunk
        )
        values = found[..., 0]
        return Explained(values, values[self.brain], error)


@dataclass(frozen=True, eq=False)
class GradCAM:
    """Grad-CAM of a block, shown within the brain."""

    block: int
    brain: np.ndarray
    note: str
    name: str = "grad-cam"

    def explain(self, network: ScoredNetwork, volume: np.ndarray) -> Explained:
        """See `AttributionMethod`."""
        found = gradcam.grad_cam(*network, jnp.asarray(volume[None]), self.block)
        values = np.where(self.brain, np.asarray(found, np.float32)[0], np.float32(0))
        return Explained(values, values[self.brain], float("nan"))


@dataclass(frozen=True, eq=False)
class Attention:
    """The weights of a gate of positions, shown within the brain."""

    block: int
    brain: np.ndarray
    note: str
    name: str = "attention"

    def explain(self, network: ScoredNetwork, volume: np.ndarray) -> Explained:
        """See `AttributionMethod`."""
        found = attention.attention_map(*network, jnp.asarray(volume[None]), self.block)
        values = np.where(self.brain, np.asarray(found, np.float32)[0], np.float32(0))
        return Explained(values, values[self.brain], float("nan"))


@dataclass(frozen=True, eq=False)
class OcclusionPatch:
    """The fall of the score when a cube is filled with the cohort's mean."""

    fill: np.ndarray
    starts: np.ndarray
    size: int
    note: str
    name: str = "occlusion-patch"

    def explain(self, network: ScoredNetwork, volume: np.ndarray) -> Explained:
        """See `AttributionMethod`."""
        found = windows.patch_drops(
            network, volume, self.fill, self.starts, self.size, _PATCHES
        ).astype(np.float32)
        painted = occlusion.spread(found, self.starts, self.size, volume.shape[:3])
        return Explained(painted, found, float("nan"))


@dataclass(frozen=True, eq=False)
class OcclusionRegion:
    """The fall of the score when a region is filled with the cohort's mean."""

    fill: np.ndarray
    labels: np.ndarray
    chosen: np.ndarray
    chunk: int
    note: str
    name: str = "occlusion-region"

    def explain(self, network: ScoredNetwork, volume: np.ndarray) -> Explained:
        """See `AttributionMethod`."""
        found = occlusion.drops(
            network, volume, self.fill, self.labels, self.chosen, self.chunk
        ).astype(np.float32)
        painted = np.zeros(self.labels.shape, np.float32)
        for label, value in zip(self.chosen, found, strict=True):
            here = self.labels == label
            painted[here] = value / np.count_nonzero(here)
        return Explained(painted, found, float("nan"))


def available(spec: CNNSpec) -> tuple[str, ...]:
    """Returns the methods that can show something of a network."""
    return tuple(name for name in METHODS if name != "attention" or attention.blocks_of(spec))


def make_methods(
    names: Sequence[str],
    settings: MethodSettings,
    spec: CNNSpec,
    grid: Grid,
    background: Background,
    labels: np.ndarray,
) -> list[AttributionMethod]:
    """Returns the methods that a user asked for.

    Args:
      names: Some of `METHODS`.
      settings: Choices.
      spec: The architecture of the networks.
      grid: Grid of the volumes.
      background: What scans are set against.
      labels: (X, Y, Z) int32 regions, 0 none.

    Raises:
      UserError: A name or a block is unknown, or the network has nothing that a method shows.
    """
    unknown = [name for name in names if name not in METHODS]
    if unknown:
        raise UserError(f"method: {unknown[0]!r} is not one of all, {', '.join(METHODS)}")
    if settings.block:
        gradcam.check_block(spec, settings.block)
    if "attention" in names:
        # A block that only Grad-CAM was asked about may have no gate.
        attention.check(spec, settings.block if "grad-cam" not in names else 0)
    made = {name: _make(name, settings, spec, grid, background, labels) for name in names}
    return list(made.values())


def _make(
    name: str,
    settings: MethodSettings,
    spec: CNNSpec,
    grid: Grid,
    background: Background,
    labels: np.ndarray,
) -> AttributionMethod:
    constant = np.full_like(background.mean, background.constant)
    baseline = constant if settings.baseline == "background" else background.mean
    against = (
        f"the constant background ({background.constant:g})"
        if settings.baseline == "background"
        else "the cohort's mean volume"
    )
    chunk = chunk_of(grid.shape)
    if name == "gradient-input":
        return GradientInput(baseline, background.brain, f"baseline: {against}")
    if name == "integrated-gradients":
        steps = -(-settings.steps // chunk) * chunk
        note = f"baseline: {against}; {steps} steps"
        return IntegratedGradients(baseline, background.brain, steps, chunk, note)
    if name == "grad-cam":
        block = settings.block or gradcam.default_block(spec, grid.shape)
        side = "x".join(map(str, gradcam.map_shapes(spec, grid.shape)[block - 1]))
        note = f"block {block}, a map of {side} voxels, signed"
        return GradCAM(block, background.brain, note)
    if name == "attention":
        asked = settings.block if settings.block in attention.blocks_of(spec) else 0
        block = asked or attention.default_block(spec, grid.shape)
        side = "x".join(map(str, attention.map_shape(block, grid.shape)))
        note = (
            f"weights of the gate after block {block}, {side} of them: by what features were "
            "multiplied, not what speaks for or against a diagnosis"
        )
        return Attention(block, background.brain, note)
    if name == "occlusion-patch":
        size = patch_size(settings.patch_mm, grid)
        starts = occlusion.patch_starts(background.reach, size)
        edge = f"{size * grid.spacing:g} mm"
        note = f"{counted(len(starts), 'cube')} of {edge}, filled with the cohort's mean"
        return OcclusionPatch(background.mean, starts, size, note)
    chosen = np.unique(labels[labels > 0])
    note = f"{counted(len(chosen), 'region')}, filled with the cohort's mean"
    return OcclusionRegion(background.mean, labels, chosen, chunk, note)


def chunk_of(shape: tuple[int, ...]) -> int:
    """Returns how many (X, Y, Z) volumes a program takes together: a power of two, 1 at least."""
    fitting = max(1.0, _VOXELS / math.prod(shape[:3]))
    return 1 << int(math.log2(fitting))


def patch_size(edge: float, grid: Grid) -> int:
    """Returns how many voxels ``edge`` mm are, rounded to a power of two of at least 2."""
    return 1 << max(1, round(math.log2(edge / grid.spacing)))
