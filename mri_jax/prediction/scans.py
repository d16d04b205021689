"""The scans to predict: raw files brought to the model's grid, or the volumes of a store."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import grain
import numpy as np
import pandas as pd

from mri_jax.errors import UserError
from mri_jax.filenames import joined_name
from mri_jax.prediction.model import PortableModel, digest_of
from mri_jax.volumes import inputs, outliers, quality
from mri_jax.volumes.inputs import ScanEntry
from mri_jax.volumes.normalise import normalise
from mri_jax.volumes.pipeline import preprocess_scan, settings_of
from mri_jax.volumes.store import StoreInfo, VolumeStore
from mri_jax.volumes.stream import Key, Reader


@dataclass(frozen=True, eq=False)
class NewScan:
    """A scan as the networks take it.

    Attributes:
      subject_id: The person, or the file's name.
      session_id: The visit.
      source: The file's name, or the store's.
      volume: (X, Y, Z, 1) float32, normalised.
      digest: Digest of the volume.
      preprocessed: Whether it came through the pipeline; a simulated volume did not.
      picture: (X, Y, Z) before normalisation, for the page; None where no page is wanted.
      figures: Figures of quality, by name.
    """

    subject_id: str
    session_id: str
    source: str
    volume: np.ndarray
    digest: str
    preprocessed: bool = True
    picture: np.ndarray | None = None
    figures: Mapping[str, float] = field(default_factory=dict)

    @property
    def key(self) -> Key:
        """(subject_id, session_id)."""
        return self.subject_id, self.session_id


@dataclass(frozen=True)
class Failure:
    """A scan that cannot be predicted, and why."""

    subject_id: str
    session_id: str
    source: str
    reason: str


@dataclass(frozen=True)
class Wanted:
    """What was asked for.

    Attributes:
      entries: Raw scans.
      stores: Stores whose every volume is asked for.
      notes: What to tell the user about how scans were found.
    """

    entries: tuple[ScanEntry, ...]
    stores: tuple[VolumeStore, ...]
    notes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.entries) + sum(map(len, self.stores))


def find(
    model: PortableModel,
    sources: Sequence[Path],
    masks: Path | None = None,
    orientation: str = "",
    root: Path | None = None,
) -> Wanted:
    """Returns what the arguments name: files, folders (BIDS, CAPS or plain), tables or stores.

    Args:
      model: Stores must fit it.
      sources: The arguments.
      masks: Folder of brain masks, for a model whose scans were extracted with given masks.
      orientation: Where the voxel axes run to, such as RAS, of files that state no orientation.
      root: As in `mri_jax.volumes.inputs.find`.

    Raises:
      UserError: A source is absent, holds no scan, or is a store of another grid or of other
        preprocessing; or raw scans are given to a model that does not know their preprocessing.
    """
    entries: list[ScanEntry] = []
    stores: list[VolumeStore] = []
    notes: list[str] = []
    for source in sources:
        if (source / "store.json").is_file():
            stores.append(_fitting(VolumeStore(source), model))
        elif source.is_file() and source.name.lower().endswith(inputs.SUFFIXES):
            entries.append(inputs.one_file(source, masks, orientation))
        else:
            found = inputs.find(source, root=root, masks=masks, orientation=orientation)
            entries += found.entries
            notes += found.notes
    if entries and model.settings is None:
        raise UserError(
            f"{model.name}: the store it was trained on states no preprocessing; give a store of "
            "such volumes instead of raw scans"
        )
    _check_apart(entries, stores)
    return Wanted(_once(entries), tuple(stores), tuple(notes))


def raw(model: PortableModel, entry: ScanEntry, picture: bool) -> NewScan | Failure:
    """Preprocess one raw scan exactly as the model's settings say."""
    assert model.settings is not None
    try:
        if entry.problem:
            raise UserError(entry.problem)
        made = preprocess_scan(
            entry.path,
            model.settings,
            entry.mask_path,
            entry.in_template_space,
            entry.orientation,
        )
        volume = normalise(made.volume, made.mask, model.normalisation)[..., None]
        return NewScan(
            *entry.key,
            entry.path.name,
            volume,
            digest_of(volume),
            picture=made.volume if picture else None,
            figures={n: made.quality[n] for n in quality.FIGURES if n in made.quality},
        )
    except (UserError, MemoryError) as error:
        return Failure(*entry.key, entry.path.name, str(error) or "out of memory")
    except Exception as error:
        # One strange scan must not stop the others; its reason is written, with the type.
        first = (str(error).splitlines() or [""])[0]
        return Failure(*entry.key, entry.path.name, f"{type(error).__name__}: {first}")


def stored(
    model: PortableModel, store: VolumeStore, picture: bool, threads: int, prefetch: int
) -> Iterator[NewScan | Failure]:
    """Yields the volumes of a store in the order of its index, read ahead by threads."""
    keys: tuple[Key, ...] = tuple(store.index.index)
    reader = Reader(store, keys, model.normalisation)
    index = store.index.reset_index(drop=True)
    known = [name for name in quality.FIGURES if name in index]
    numbers = index[known].apply(pd.to_numeric, errors="coerce").to_dict("records")
    preprocessed = "pipeline" in store.info.settings
    # A store that was never raw has no figures: those that a volume gives are measured.
    template = None if known or model.settings is None else model.settings.load_template()

    def read(row: int) -> NewScan | Failure:
        try:
            volume, figures = reader.read(row), numbers[row]
            stored = np.asarray(store.volume(*keys[row]))
            if template is not None:
                mask = np.asarray(store.mask(*keys[row]))
                figures = quality.grid_figures(stored, mask, model.grid, template)
            shown = stored if picture else None
            name, digest = store.path.name, digest_of(volume)
            return NewScan(*keys[row], name, volume, digest, preprocessed, shown, figures)
        except UserError as error:
            return Failure(*keys[row], store.path.name, str(error))

    dataset = grain.MapDataset.source(range(len(keys))).map(read)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=prefetch)
    yield from dataset.to_iter_dataset(options)


def _check_apart(entries: Sequence[ScanEntry], stores: Sequence[VolumeStore]) -> None:
    """Refuse a subject and session that two sources hold: their rows and pages would be one."""
    seen: dict[Key, str] = {entry.key: str(entry.path) for entry in entries}
    for store in stores:
        for key in store.index.index:
            if key in seen:
                raise UserError(
                    f"{store.path}: subject {key[0]}, session {key[1]} is in {seen[key]} too; "
                    "predict them separately"
                )
        seen |= dict.fromkeys(store.index.index, str(store.path))


def _once(entries: list[ScanEntry]) -> tuple[ScanEntry, ...]:
    """Mark a second scan of one subject and session: their rows and pages would be one.

    So would be pages of ids that differ by case alone, on macOS and Windows.
    """
    seen: dict[str, Path] = {}
    marked = []
    for entry in entries:
        page = joined_name(*entry.key).casefold()
        if page in seen and not entry.problem:
            other = seen[page].name
            rule = f"the same subject and session, but for case, as {other} before it"
            entry = replace(entry, problem=rule)
        seen.setdefault(page, entry.path)
        marked.append(entry)
    return tuple(marked)


def _fitting(store: VolumeStore, model: PortableModel) -> VolumeStore:
    info, grid = store.info, model.grid
    here, there = info.grid, (grid.shape, grid.spacing, grid.origin)
    if (here.shape, here.spacing, here.origin) != there:
        raise UserError(
            f"{store.path}: its grid {here.name} {here.shape} of {here.spacing:g} mm is not the "
            f"model's {grid.name} {grid.shape} of {grid.spacing:g} mm"
        )
    other = _other_settings(info, model)
    if other:
        raise UserError(f"{store.path}: was preprocessed differently from the model: {other}")
    return store


def _other_settings(info: StoreInfo, model: PortableModel) -> str:
    """Returns the first difference between a store's and a model's preprocessing; empty without."""
    if info.simulated and model.simulated and model.never_raw and "pipeline" not in info.settings:
        return ""
    try:
        settings = settings_of(info)
    except UserError as error:
        return str(error)
    if model.settings is None:
        return "the model states no settings"
    here, there = settings.to_json(), model.settings.to_json()
    names = [name for name in there if here.get(name) != there[name]]
    return f"{names[0]} is {here.get(names[0])!r}, not {there[names[0]]!r}" if names else ""


def beyond_limits(scan: NewScan) -> str:
    """Returns the figures of a scan beyond what any adult head has; empty where there is none."""
    return outliers.outside(scan.figures, quality.LIMITS)
