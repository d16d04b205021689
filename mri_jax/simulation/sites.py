"""The sites: what their scanners and their people are like.

Scanner figures are invented within the range of clinical T1-weighted protocols at 1.5 T and 3 T;
ages of the four cohorts follow their published demographics to about a year. None is a real
scanner. Of the seven sites of a study of many, SITE3 has another field strength and SITE4 younger
people.
"""

import dataclasses
from collections.abc import Callable, Sequence

from mri_jax.simulation.settings import COHORTS
from mri_jax.site_shifts import SHIFTS


@dataclasses.dataclass(frozen=True)
class Site:
    """One site's scanner and population.

    Attributes:
      name: The cohort.
      field_strength: Tesla; part of ``contrast`` when shifts are switched.
      contrast: Signal of CSF, grey and white matter.
      bias: SD of the log of the smooth coil sensitivity pattern.
      noise: SD of the noise in a voxel of 1 mm3, in units of white matter's signal.
      resolution: SD of the point spread along X, Y, Z in mm (anisotropic where slices are thick).
      gamma: Exponent of the intensity curve.
      gain: Factor to the scanner's units.
      age: Mean age of its cognitively normal people, years.
      severity: Multiplies the disease stage of everyone there.
      orientation: Axis codes of a raw scan.
      voxel: Voxel of a raw scan along X, Y, Z (RAS) before it is stored in that orientation, mm.
    """

    name: str
    field_strength: float
    contrast: tuple[float, float, float]
    bias: float
    noise: float
    resolution: tuple[float, float, float]
    gamma: float
    gain: float
    age: float
    severity: float
    orientation: str
    voxel: tuple[float, float, float]


_SITES = {
    site.name: site
    for site in (
        Site("ADNI1", 1.5, (0.22, 0.60, 0.86), 0.08, 0.045, (0.6, 0.4, 0.4), 1.0, 420.0,
             75.8, 1.0, "PSR", (1.2, 0.94, 0.94)),
        Site("ADNI2", 3.0, (0.17, 0.64, 0.92), 0.14, 0.030, (0.5, 0.4, 0.4), 0.95, 800.0,
             73.5, 0.92, "PIR", (1.2, 1.0, 1.0)),
        Site("ADNI3", 3.0, (0.15, 0.58, 0.92), 0.12, 0.022, (0.4, 0.4, 0.4), 1.05, 1300.0,
             71.0, 0.88, "RAS", (1.0, 1.0, 1.0)),
        Site("AIBL", 3.0, (0.20, 0.66, 0.90), 0.16, 0.035, (0.4, 0.4, 0.6), 1.1, 560.0,
             72.5, 1.08, "LPS", (1.0, 1.0, 1.2)),
        Site("SITE1", 3.0, (0.17, 0.62, 0.91), 0.12, 0.030, (0.4, 0.4, 0.4), 1.0, 700.0,
             73.5, 1.0, "RAS", (1.0, 1.0, 1.0)),
        Site("SITE2", 3.0, (0.16, 0.60, 0.92), 0.14, 0.026, (0.5, 0.4, 0.4), 0.95, 900.0,
             73.0, 1.0, "PIR", (1.2, 1.0, 1.0)),
        Site("SITE3", 1.5, (0.23, 0.60, 0.85), 0.08, 0.046, (0.6, 0.4, 0.4), 1.05, 420.0,
             74.0, 1.0, "PSR", (1.2, 0.94, 0.94)),
        Site("SITE4", 3.0, (0.18, 0.63, 0.90), 0.13, 0.028, (0.4, 0.4, 0.5), 1.05, 1100.0,
             66.0, 1.0, "LPS", (1.0, 1.0, 1.1)),
        Site("SITE5", 3.0, (0.15, 0.59, 0.93), 0.16, 0.034, (0.4, 0.4, 0.4), 0.9, 560.0,
             73.5, 1.0, "RAS", (1.0, 1.0, 1.0)),
        Site("SITE6", 3.0, (0.19, 0.65, 0.90), 0.10, 0.024, (0.4, 0.4, 0.4), 1.1, 1300.0,
             72.5, 1.0, "RAS", (1.0, 1.0, 1.0)),
        Site("SITE7", 3.0, (0.17, 0.61, 0.91), 0.15, 0.036, (0.4, 0.5, 0.4), 1.0, 650.0,
             74.5, 1.0, "PIR", (1.0, 1.1, 1.0)),
    )
}  # fmt: skip
_FIELDS = {
    "contrast": ("contrast", "field_strength"),
    "resolution": ("resolution", "orientation", "voxel"),
}


def site_named(name: str, shifts: Sequence[str], strength: float = 1.0) -> Site:
    """Returns a site that differs from ADNI1 in the given shifts only.

    Args:
      name: One of `settings.NAMES`.
      shifts: Those of `mri_jax.site_shifts.SHIFTS` that are on.
      strength: Multiplies how far it is from ADNI1: differences of ages and of signals, and
        logarithms of ratios of everything that is positive by nature.
    """
    reference, site = _SITES[COHORTS[0]], _SITES[name]
    if strength != 1.0:
        site = _away(reference, site, strength)
    off = [shift for shift in SHIFTS if shift not in shifts]
    fields = [field for shift in off for field in _FIELDS.get(shift, (shift,))]
    return dataclasses.replace(site, **{field: getattr(reference, field) for field in fields})


def _away(reference: Site, site: Site, strength: float) -> Site:
    """Returns a site so many times as far from the reference."""

    def scaled(near: float, far: float) -> float:
        return near * (far / near) ** strength

    return dataclasses.replace(
        site,
        contrast=_scaled(scaled, reference.contrast, site.contrast),
        bias=scaled(reference.bias, site.bias),
        noise=scaled(reference.noise, site.noise),
        resolution=_scaled(scaled, reference.resolution, site.resolution),
        gamma=scaled(reference.gamma, site.gamma),
        gain=scaled(reference.gain, site.gain),
        age=reference.age + strength * (site.age - reference.age),
        severity=scaled(reference.severity, site.severity),
    )


def _scaled(
    scaled: Callable[[float, float], float],
    near: tuple[float, float, float],
    far: tuple[float, float, float],
) -> tuple[float, float, float]:
    x, y, z = (scaled(a, b) for a, b in zip(near, far, strict=True))
    return x, y, z
