"""The search for scans that stand twice in a catalogue."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
from etils import epath

from mri_jax import files, sealed
from mri_jax.cohort import duplicates, near_duplicates
from mri_jax.cohort.leakage import refuse_same_bytes
from mri_jax.errors import UserError
from mri_jax.planning.catalogue import Catalogue, Key
from mri_jax.problems import counted
from mri_jax.progress import track
from mri_jax.volumes import described, descriptors
from mri_jax.volumes.store import VolumeStore

_MANY = 10_000  # volumes whose comparison takes some seconds


def searched(
    catalogue: Catalogue,
    store: VolumeStore,
    table: epath.PathLike,
    elsewhere: epath.PathLike | None = None,
) -> Catalogue:
    """Returns the catalogue after a search for scans that stand in it twice.

    Raises:
      UserError: There are some, and nobody has decided about them.
    """
    rows = store.index.loc[list(catalogue.keys)]
    for column, what in (("sha256", "volume"), ("input_sha256", "raw image")):
        if column in rows:
            scans = zip(rows["subject_id"], rows["session_id"], rows[column], strict=True)
            refuse_same_bytes(scans, f"{table}: {what}")
    found = _alike(store, catalogue.keys, elsewhere)
    settled = duplicates.settled(found, catalogue.keys, table, catalogue.apart)
    return replace(catalogue, searched=settled)


def _alike(
    store: VolumeStore, keys: Sequence[Key], elsewhere: epath.PathLike | None
) -> near_duplicates.Alike:
    """Returns near-identical volumes of different subjects, as an earlier search kept them.

    What is found depends on ids and contents alone. It is kept with the descriptions, unless a
    volume has none, which can be mended.
    """
    subjects = [subject for subject, _ in keys]
    versions = [near_duplicates.VERSION, descriptors.VERSION]
    about = [versions, subjects, store.index.loc[list(keys), "sha256"].tolist()]
    name = f"near_identical/{files.fingerprint(about)}.json"
    places = [store.path, *([epath.Path(elsewhere)] if elsewhere is not None else [])]
    for place in places:
        with contextlib.suppress(UserError, KeyError, TypeError):
            return near_duplicates.Alike.from_json(sealed.read(place / name)["alike"])
    volumes = near_duplicates.compared(
        described.of_scans(store, keys, elsewhere), descriptors.mirrored
    )
    over = _counted if len(keys) >= _MANY else iter
    found = near_duplicates.alike(volumes, subjects, over)
    if found.scans == len(keys):
        for place in places:
            with contextlib.suppress(UserError):
                sealed.write(place / name, {"alike": found.to_json()}, ())
                break
    return found


def _counted(blocks: Sequence[int]) -> Iterator[int]:
    return track(blocks, len(blocks), "block", "near-identical volumes")


def resolved(
    table: pd.DataFrame,
    folder: Path,
    file: Path,
    threshold: float | None,
    say: Callable[[str], None],
) -> dict[str, str]:
    """Lists near-identical volumes of a cohort table, about each of which there must be a decision.

    Args:
      table: The cohort table.
      folder: The store of its volumes.
      file: ``duplicates.csv``, in which they are listed.
      threshold: Correlation from which volumes are near-identical; None: it is calibrated.
      say: Where it is told what was found.

    Returns:
      Subjects that are to be left out, and why.

    Raises:
      UserError: A line has no decision, or there is nothing to compare.
    """
    store = VolumeStore(folder)
    keys = [key for key in table[["subject_id", "session_id"]].itertuples(index=False, name=None)
            if key in store.index.index]  # fmt: skip
    if len(keys) < 2:
        raise UserError(
            f"{folder}: holds {counted(len(keys), 'scan')} of the table; at least 2 are needed"
        )
    say(f"{folder}: holds {len(keys)} of {counted(len(table), 'scan')} of the table, and "
          f"{len(store) - len(keys)} that are not in it")  # fmt: skip
    store.check(keys)
    own = described.of_scans(store, keys)
    volumes = near_duplicates.compared(own, descriptors.mirrored)
    subjects = [subject for subject, _ in keys]
    found = near_duplicates.calibrate(volumes, subjects)
    limit = found.value if threshold is None else threshold
    if threshold is None and found.rescans:
        said = f"which finds {found.found:.0%} of {counted(found.rescans, 'pair')} of known rescans"
    elif threshold is None:
        said = "the default, for no subject has two scans to check it on"
    else:
        said = "the threshold given"
    pairs = near_duplicates.pairs_above(volumes, subjects, limit)
    mirrored = sum(pair.mirrored for pair in pairs)
    say(f"near-identical volumes: {counted(len(pairs), 'pair')} of different ids "
          + (f"({mirrored} of them mirrored) " if mirrored else "")
          + f"with a correlation of at least {limit:.3f} ({said})")  # fmt: skip
    listed = duplicates.listing(pairs, keys, duplicates.read(file))
    if len(listed):
        files.write_csv(file, listed)
    duplicates.check_decisions(listed, str(file))
    return duplicates.dropped(listed)
