"""Registration of the template to a scan: an exhaustive start, then Gauss-Newton.

The start (`search`) compares the template's head with the scan at 12 mm for every rotation of a
lattice, three sizes and, by Fourier transforms, every translation, so it needs no guess of where
the head lies. `refine` then raises the correlation over the template's voxels by damped
Gauss-Newton steps on the 12 affine parameters, which converges to about 0.01 mm; the gradient
descents at hand stopped up to 3 mm from each other (see ``BUILD_NOTES.md``). A rigid transform
(`register_rigid`) is found in the same way on 6 parameters and keeps the size of the head.

A transform is a (4, 4) matrix from template millimetres to scan millimetres.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import fft, linalg, ndimage
from scipy.spatial.transform import Rotation

from mri_jax.errors import UserError
from mri_jax.volumes.intensities import head_level
from mri_jax.volumes.resampling import Image, coarsen, pull, smoothing_sigma, transform_points
from mri_jax.volumes.templates import Template

SEARCH_SPACING = 12.0
SEARCH_SCALES = (0.72, 0.82, 0.94, 1.08)
SEARCH_STEP, SEARCH_LIMIT = 20.0, 55.0
CANDIDATES = 6
# Real heads reach 0.72 to 0.90, also with noise, bright fat or thick slices; noise alone 0.31, a
# cylinder 0.48, heads that were missed at most 0.50.
WORST_CORRELATION = 0.55
# Below it a scan is also looked at turned by 180 degrees, which headers confuse (LPS for RAS):
# heads that lie right then gain nothing, the others 0.2 and more.
DOUBTFUL_CORRELATION, TURN_GAIN = 0.7, 0.1
HALF_TURNS = {
    "superior-inferior": (-1.0, -1.0, 1.0),
    "anterior-posterior": (-1.0, 1.0, -1.0),
    "left-right": (1.0, -1.0, -1.0),
}
SIZES = (0.25, 2.5)
# Lengths over which rotation and scale are measured (mm): about the radius of a brain, so that
# the 12 parameters of a step have like sizes.
LEVER = 80.0


@dataclass(frozen=True, eq=False)
class AffineFit:
    """A transform and how well the template lies there.

    Attributes:
      matrix: (4, 4) template millimetres to scan millimetres.
      correlation: Correlation of the intensities over the template voxels used, -1 to 1.
    """

    matrix: np.ndarray
    correlation: float


def register_head(scan: Image, template: Template) -> AffineFit:
    """Find the template's head (brain, skull and scalp) in a scan, wherever it lies.

    Raises:
      UserError: Nothing in the scan resembles a head, or it is turned against its header.
    """
    scan = cut_bright(scan)
    starts = search(scan, template)
    fit = _refined(scan, starts, template)
    if fit.correlation < DOUBTFUL_CORRELATION:
        _refuse_turned(scan, starts[0], fit, template)
    size = abs(np.linalg.det(fit.matrix[:3, :3]))
    if fit.correlation < WORST_CORRELATION or not SIZES[0] < size < SIZES[1]:
        raise UserError(
            f"no head found: correlation with the template {fit.correlation:.2f} (at least "
            f"{WORST_CORRELATION}), volume {size:.2f} of the template's ({SIZES[0]} to "
            f"{SIZES[1]}); a head turned by more than {SEARCH_LIMIT:.0f} degrees is not found: is "
            "the header's orientation right?"
        )
    return fit


def _refined(scan: Image, starts: list[AffineFit], template: Template) -> AffineFit:
    """Returns the best of the first starts of `search`, refined at 8 and 4 mm."""
    coarse, points = coarsen(scan, 8.0), _points(template, 8.0, "head")
    fits = [refine(coarse, start, points) for start in starts[:CANDIDATES]]
    best = max(fits, key=lambda fit: fit.correlation)
    return refine(coarsen(scan, 4.0), best, _points(template, 4.0, "head"))


def _refuse_turned(scan: Image, start: AffineFit, fit: AffineFit, template: Template) -> None:
    """Refuse a scan that fits far better when it is turned by 180 degrees about an axis.

    A head that its header lays with the face to the back fits the template just well enough.
    """
    for axis, signs in HALF_TURNS.items():
        turned = Image(scan.data, np.diag([*signs, 1.0]) @ scan.affine)
        starts = search(turned, template)
        if starts[0].correlation <= start.correlation:
            continue
        found = _refined(turned, starts, template)
        if found.correlation > fit.correlation + TURN_GAIN:
            raise UserError(
                f"the header's orientation is wrong: turned by 180 degrees about the {axis} axis "
                f"the head correlates {found.correlation:.2f} with the template, as the header "
                f"lays it {fit.correlation:.2f}; correct the header, or convert the DICOM again"
            )


def cut_bright(image: Image) -> Image:
    """Cut intensities at the median of the head, so that fat is no brighter than brain.

    The head is what exceeds `head_level`.
    """
    data = np.asarray(image.data, np.float32)
    head = data > head_level(data)
    return Image(np.minimum(data, np.median(data[head]) if head.any() else 0), image.affine)


def register_brain(
    scan: Image, mask: np.ndarray, start: AffineFit, template: Template
) -> AffineFit:
    """Refine a transform on the brain alone.

    Args:
      scan: The scan.
      mask: Its brain, on the same voxels.
      start: Where to begin.
      template: The template.
    """
    inside = np.asarray(scan.data, np.float32) * mask
    # Scale by the brain's own intensities, and leave the air at 0 as in the template.
    brain = Image(inside, scan.affine)
    fit = start
    for spacing in (4.0, 2.0):
        fit = refine(coarsen(brain, spacing), fit, _points(template, spacing, "brain"))
    return fit


def register_rigid(
    scan: Image, mask: np.ndarray, affine: AffineFit, template: Template
) -> AffineFit:
    """Returns the rotation and translation that lay the brain on the template, its size unchanged.

    They are refined with the template scaled to the brain: compared at unlike sizes, a brain turns
    by degrees to overlap better. The scale is taken out at the end, about the template's centre.

    Args:
      scan: The scan.
      mask: Its brain, on the same voxels.
      affine: From `register_brain`; its rotation and scale are the start.
      template: The template.

    Returns:
      The rigid transform, and the correlation with the scaled template.
    """
    rotation, _ = linalg.polar(affine.matrix[:3, :3])
    size = float(np.cbrt(np.linalg.det(affine.matrix[:3, :3])))
    fit = AffineFit(_about_centre(size * rotation, affine.matrix, template), affine.correlation)
    brain = Image(np.asarray(scan.data, np.float32) * mask, scan.affine)
    for spacing in (4.0, 2.0):
        points = _points(template, spacing, "brain")
        fit = refine(coarsen(brain, spacing), fit, points, rigid=True)
    turn = fit.matrix[:3, :3] / size
    return AffineFit(_about_centre(turn, fit.matrix, template), fit.correlation)


def _about_centre(linear: np.ndarray, matrix: np.ndarray, template: Template) -> np.ndarray:
    """Returns a transform with another linear part that moves the template's centre alike."""
    changed = np.eye(4)
    changed[:3, :3] = linear
    place = transform_points(matrix, template.centre[None])[0]
    changed[:3, 3] = place - linear @ template.centre
    return changed


def fit_of(scan: Image, mask: np.ndarray, matrix: np.ndarray, template: Template) -> AffineFit:
    """Returns how well the brain lies on the template under a transform that stays as it is."""
    brain = coarsen(Image(np.asarray(scan.data, np.float32) * mask, scan.affine), 2.0)
    places, target = _points(template, 2.0, "brain")
    target = (target - target.mean()) / target.std()
    *_, correlation = _compare(brain, np.linalg.inv(brain.affine) @ matrix, places, target)
    return AffineFit(matrix, correlation)


def search(scan: Image, template: Template) -> list[AffineFit]:
    """Transforms by decreasing correlation, from an exhaustive coarse search.

    Rotations up to `SEARCH_LIMIT` degrees in steps of `SEARCH_STEP`, sizes `SEARCH_SCALES`, all
    translations that keep the template's centre inside the scan.
    """
    field, origin = _axis_aligned(scan)
    field = field / max(float(field.max()), 1e-12)
    size = int(np.ceil(2 * template.radius * max(SEARCH_SCALES) / SEARCH_SPACING)) | 1
    shape = tuple(fft.next_fast_len(n + size, real=True) for n in field.shape)
    sums, squares = fft.rfftn(field, shape), fft.rfftn(field**2, shape)
    half = (size - 1) // 2
    found = []
    for transform, pattern, weight in _patterns(template, size):
        count = weight.sum()
        energy = (pattern**2 / np.maximum(weight, 1e-3)).sum()
        kernel, window = np.conj(fft.rfftn(pattern, shape)), np.conj(fft.rfftn(weight, shape))
        mean = fft.irfftn(sums * window, shape)
        spread = fft.irfftn(squares * window, shape) - mean**2 / count
        spread = np.maximum(spread, 1e-3 * spread.max())
        score = fft.irfftn(sums * kernel, shape) / np.sqrt(spread * energy)
        # Index c - half (cyclic) is the translation that puts the template's centre on voxel c.
        score = np.roll(score, half, axis=(0, 1, 2))[tuple(map(slice, field.shape))]
        where = np.unravel_index(int(np.argmax(score)), score.shape)
        matrix = transform.copy()
        matrix[:3, 3] = origin + SEARCH_SPACING * np.array(where) - matrix[:3, :3] @ template.centre
        found.append(AffineFit(matrix, float(score[where])))
    return sorted(found, key=lambda fit: -fit.correlation)


def refine(
    scan: Image,
    start: AffineFit,
    points: tuple[np.ndarray, np.ndarray],
    steps: int = 40,
    rigid: bool = False,
) -> AffineFit:
    """Raise the correlation of scan and template by damped Gauss-Newton steps.

    Args:
      scan: Smoothed as the template's points are.
      start: Where to begin.
      points: (N, 3) template millimetres and (N,) intensities of the template there.
      steps: At most; it ends when a step moves the brain by less than 0.01 mm.
      rigid: Whether to change rotation and translation alone.
    """
    places, target = points
    target = (target - target.mean()) / target.std()
    centre = places.mean(0)
    terms = np.c_[(places - centre) / LEVER, np.ones(len(places))].astype(np.float32)
    gradients = [np.asarray(g, np.float32) for g in np.gradient(scan.data)]
    to_voxels = np.linalg.inv(scan.affine)
    matrix, damping = start.matrix, 1e-3
    # Columns of a step: rotation and translation, or the affine's three columns and translation.
    weights = [0.25, 1.0] if rigid else [0.25, 0.25, 0.25, 1.0]
    voxels, values, correlation = _compare(scan, to_voxels @ matrix, places, target)
    for _ in range(steps):
        # d(value)/d(scan mm) at every point, then times the twelve terms of an affine.
        slopes = np.stack(
            [ndimage.map_coordinates(g, voxels, order=1, mode="constant") for g in gradients], 1
        ) @ to_voxels[:3, :3].astype(np.float32)
        gain = correlation / max(float(values.std()), 1e-12)
        error = target - gain * (values - values.mean())
        slopes = gain * slopes
        if rigid:
            arms = (places - centre) @ matrix[:3, :3].T / LEVER
            moves = np.concatenate([np.cross(arms, slopes), slopes], 1)
        else:
            moves = (slopes[:, :, None] * terms[:, None]).reshape(len(places), 12)
        jacobian = np.empty((len(places), moves.shape[1] + 2), np.float32)
        jacobian[:, :-2] = moves
        jacobian[:, -2], jacobian[:, -1] = gain * values, 1
        normal = (jacobian.T @ jacobian).astype(np.float64)
        toward = (jacobian.T @ error).astype(np.float64)
        while damping < 1e4:
            scaled = normal + damping * np.diag(np.diag(normal) + 1e-12)
            step = np.linalg.solve(scaled, toward)[:-2]
            change = step.reshape(2, 3).T if rigid else step.reshape(3, 4)
            trial = (_turned if rigid else _stretched)(matrix, change, centre)
            attempt = _compare(scan, to_voxels @ trial, places, target)
            if attempt[2] > correlation:
                break
            damping *= 10
        else:
            break
        matrix, (voxels, values, correlation) = trial, attempt
        damping = max(damping / 10, 1e-6)
        if np.sqrt((change**2).sum(0) @ weights) < 0.01:
            break
    return AffineFit(matrix, correlation)


def _stretched(matrix: np.ndarray, change: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Returns an affine changed by (3, 4): entries times `LEVER` about the centre, shift in mm."""
    trial = matrix.copy()
    trial[:3, :3] += change[:, :3] / LEVER
    trial[:3, 3] += change[:, 3] - change[:, :3] @ centre / LEVER
    return trial


def _turned(matrix: np.ndarray, change: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Returns a rigid transform changed by (3, 2): rotation vector times `LEVER`, shift in mm."""
    place = matrix[:3, :3] @ centre + matrix[:3, 3]
    trial = matrix.copy()
    trial[:3, :3] = Rotation.from_rotvec(change[:, 0] / LEVER).as_matrix() @ matrix[:3, :3]
    trial[:3, 3] = place + change[:, 1] - trial[:3, :3] @ centre
    return trial


def _compare(
    scan: Image, matrix: np.ndarray, places: np.ndarray, target: np.ndarray
) -> tuple[np.ndarray, np.ndarray, float]:
    voxels = transform_points(matrix, places).T
    values = ndimage.map_coordinates(scan.data, voxels, order=1, mode="constant")
    spread = float(values.std(dtype=np.float64))
    if spread == 0:
        return voxels, values, -1.0
    mean = values.mean(dtype=np.float64)
    return voxels, values, float(np.mean((values - mean) * target, dtype=np.float64) / spread)


def _axis_aligned(scan: Image) -> tuple[np.ndarray, np.ndarray]:
    """Returns the scan at `SEARCH_SPACING` along scanner axes, and the mm of its first voxel."""
    corners = np.array(list(np.ndindex(2, 2, 2))) * (np.array(scan.data.shape) - 1)
    box = transform_points(scan.affine, corners)
    low, high = box.min(0), box.max(0)
    shape = tuple(int(n) for n in np.ceil((high - low) / SEARCH_SPACING) + 1)
    affine = np.diag([SEARCH_SPACING] * 3 + [1.0])
    affine[:3, 3] = low
    sigma = smoothing_sigma(scan.spacing, SEARCH_SPACING)
    smooth = Image(ndimage.gaussian_filter(scan.data, sigma, truncate=3), scan.affine)
    return pull(smooth, affine, shape), low


@lru_cache(maxsize=2)
def _patterns(template: Template, size: int) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Returns (linear, centred template, weight) for each rotation and size of the search."""
    near, whole = template.surroundings, cut_bright(template.coarse[0])
    images = []
    for data in (whole.data * near.data, near.data):
        fine = coarsen(Image(data, near.affine), SEARCH_SPACING / 3)
        sigma = smoothing_sigma(fine.spacing, SEARCH_SPACING)
        images.append(Image(ndimage.gaussian_filter(fine.data, sigma, truncate=3), fine.affine))
    reach = np.arange(-3, 4) * SEARCH_STEP
    vectors = np.stack(np.meshgrid(reach, reach, reach, indexing="ij"), -1).reshape(-1, 3)
    vectors = vectors[np.linalg.norm(vectors, axis=1) <= SEARCH_LIMIT]
    result = []
    for scale in SEARCH_SCALES:
        for rotation in Rotation.from_rotvec(vectors, degrees=True).as_matrix():
            linear = np.eye(4)
            linear[:3, :3] = scale * rotation
            kernel = np.eye(4)
            kernel[:3, :3] = rotation.T * SEARCH_SPACING / scale
            kernel[:3, 3] = template.centre - kernel[:3, :3] @ np.full(3, (size - 1) / 2)
            pattern, window = (pull(image, kernel, (size, size, size)) for image in images)
            result.append((linear, pattern - window * (pattern.sum() / window.sum()), window))
    return result


@lru_cache(maxsize=8)
def _points(template: Template, spacing: float, region: str) -> tuple[np.ndarray, np.ndarray]:
    """Template millimetres (N, 3) and intensities (N,) of the voxels to compare at one spacing."""
    head, brain = template.coarse
    if region == "head":
        head = cut_bright(head)
    where = template.surroundings if region == "head" else brain
    data = head.data if region == "head" else head.data * brain.data
    image = coarsen(Image(data, head.affine), spacing)
    inside = coarsen(where, spacing).data > 0.5
    if region == "brain":
        # A voxel of rim, where both are 0, pins the size of the brain.
        inside = ndimage.binary_dilation(inside, iterations=max(1, round(4 / spacing)))
    places = transform_points(image.affine, np.argwhere(inside))
    return places.astype(np.float64), image.data[inside]
