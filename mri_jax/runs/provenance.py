"""What made the results of a run: ``provenance.json``, written and read by one owner."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from etils import epath

from mri_jax import files
from mri_jax.models.chosen import Choice
from mri_jax.typed import build

NAME = "provenance.json"


@dataclass(frozen=True)
class Preprocessing:
    """How the scans of a run became volumes.

    Attributes:
      shape: Voxels of the grid, (X, Y, Z).
      spacing: Edge of a voxel, mm.
      dtype: Type of the stored volumes.
      settings: Settings of the store.
      scans: For each step, how many scans each of its kinds was used for.
    """

    shape: tuple[int, ...]
    spacing: float
    dtype: str
    settings: Mapping[str, Any]
    scans: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Beside:
    """How many networks a device trains side by side, and what was measured.

    Attributes:
      networks: What they are.
      number: How many of them there are for each device.
      count: So many train side by side.
      seconds: Of one step of each, by how many train side by side (``"2"``).
      refused: Why more were not tried, by how many.
    """

    networks: str
    number: int
    count: int
    seconds: Mapping[str, float]
    refused: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Provenance:
    """What made the results. A field that an earlier version did not write is None or empty.

    Attributes:
      simulated: Whether the scans are simulated.
      mri_jax: Version of the package.
      git_commit: Commit of its checkout; None where it has none.
      python: Version of Python.
      platform: Operating system and processor.
      versions: Versions of the packages that it computed with.
      devices: Platform and kind of each device.
      forms: How conv layers were computed: ``native``, ``xla``, ``lanes``, ``reference``, or
        ``measure``.
      choices: With ``measure``, the form of each layer, and the seconds of all that were tried.
      beside: How many networks a device trains side by side, where it was measured.
      kernels: File name of the native kernels, which tells source, processor and compiler; None
        where none were used.
      command: The command line.
      near_duplicates: Figures of the search for near-identical volumes; None without a search.
      despite_exclusion: How many scans were analysed that ``exclusions.csv`` of the store left out.
      store: The folder of the volume store, absolute.
      store_from_run: The same folder seen from the results folder; None in a bucket.
      store_fingerprint: Fingerprint of the store.
      preprocessing: How the scans became volumes.
      data_fingerprint: Fingerprint of the scans that were used.
    """

    simulated: bool | None = None
    mri_jax: str | None = None
    git_commit: str | None = None
    python: str | None = None
    platform: str | None = None
    versions: Mapping[str, str | None] = field(default_factory=dict)
    devices: tuple[str, ...] = ()
    forms: str | None = None
    choices: tuple[Choice, ...] = ()
    beside: tuple[Beside, ...] = ()
    kernels: str | None = None
    command: tuple[str, ...] = ()
    near_duplicates: Mapping[str, float] | None = None
    despite_exclusion: int | None = None
    store: str | None = None
    store_from_run: str | None = None
    store_fingerprint: str | None = None
    preprocessing: Preprocessing | None = None
    data_fingerprint: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Returns the fields as ``provenance.json`` holds them."""
        values = asdict(self)
        if self.store_from_run is None:
            del values["store_from_run"]
        return values


def write(run: epath.Path, provenance: Provenance) -> None:
    """Writes the file of a results folder."""
    files.write_json(run / NAME, provenance.to_json())


def read(run: epath.Path) -> Provenance | None:
    """Returns what made a run; None where the file is absent or holds nothing.

    Fields that only another version knows are left out.

    Raises:
      UserError: The file is no JSON object, or a field is of another type; it is named.
    """
    path = run / NAME
    values = files.read_json(path, dict) if files.is_there(path) else {}
    names = {each.name for each in fields(Provenance)}
    known = {name: value for name, value in values.items() if name in names}
    return build(Provenance, known, str(path)) if values else None
