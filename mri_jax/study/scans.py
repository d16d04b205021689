"""The scans of a study: a cohort table joined with a store, or simulated cohorts."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import pandas as pd
from etils import epath

from mri_jax.cohort import flow as flows
from mri_jax.cohort import same_people
from mri_jax.cohort.duplicates import refuse_unresolved
from mri_jax.cohort.table import KEY, read_table
from mri_jax.errors import UserError, naming
from mri_jax.planning.catalogue import Catalogue, Key, catalogue_of
from mri_jax.planning.simulated import site_counts
from mri_jax.planning.sites import counts_in, left_out_in_turn
from mri_jax.problems import counted
from mri_jax.problems import listed as few
from mri_jax.settings.study import Study, named
from mri_jax.study.twice import searched
from mri_jax.volumes import exclusions
from mri_jax.volumes.grids import GRIDS, Grid
from mri_jax.volumes.store import MASK_DIGEST, VolumeStore, older

QUALITY = ("snr", "correlation", "leakage")
"""Figures of the store's quality control that go into the results beside each scan."""


def open_store(study: Study) -> VolumeStore | None:
    """Returns the store that a study names; None where it simulates its scans.

    Raises:
      UserError: It is absent or malformed.
    """
    if study.data.simulated:
        return None
    with naming(named("data.store")):
        return VolumeStore(study.data.store)


def grid_of(study: Study, store: VolumeStore | None) -> Grid:
    """Returns the grid of a study's volumes."""
    return GRIDS[study.simulation.grid] if store is None else store.info.grid


def with_sites(
    study: Study, store: VolumeStore | None, say: Callable[[str], None] = print
) -> Study:
    """Returns a study with its sites left out in turn, where it asks for that; else as it is.

    Args:
      study: What is asked.
      store: Its store; None where it simulates its scans.
      say: Where it is told what becomes of small sites.

    Raises:
      UserError: The table is absent or malformed, or its sites will not do.
    """
    if not study.awaits_sites:
        return study
    if store is None:
        counts = site_counts(study)
    else:
        with naming(named("data.cohort")):
            frame = read_table(study.data.cohort)
        stored = set(store.index.index)
        frame = frame[[key in stored for key in _keys(frame)]]
        counts = counts_in(frame, study)
    study, told = left_out_in_turn(study, counts)
    for line in told:
        say(f"note: {line}")
    return study


def open_catalogue(
    table: epath.PathLike,
    store: VolumeStore,
    study: Study,
    elsewhere: epath.PathLike | None = None,
) -> Catalogue:
    """Returns the scans that a cohort table and a store have in common, for a study's cohorts.

    Args:
      table: The cohort table.
      store: The store.
      study: Says which cohorts, and what to do with persons in several.
      elsewhere: Where descriptions of volumes are kept if the store cannot be written.

    Raises:
      UserError: The table is absent or malformed, or lacks a cohort or every volume; two ids are
        probably one person and nothing beside the table says that they are not; one image stands
        under two ids; or two ids have near-identical volumes and nobody has decided about them.
    """
    with naming(named("data.cohort")):
        frame = read_table(table)
    refuse_unresolved(frame, table)
    apart = same_people.read([table])
    listed = frame[frame["cohort"].isin(study.cohorts)]
    absent = [name for name in study.cohorts if not (listed["cohort"] == name).any()]
    if absent:
        found = ", ".join(sorted(set(frame["cohort"])))
        raise UserError(
            f"{table}: has no scan of cohort {absent[0]!r}; it has {found} "
            f"({named('source.cohorts')}, {named('targets')} and {named('finetune.cohort')} "
            "name the cohorts)"
        )
    same_people.refuse_probable(listed, table, apart)
    flow, notes = flows.of_table(table, listed)
    known = store.index["sha256"].to_dict()
    catalogue = catalogue_of(listed, known, study, store.info.grid, apart, flow)
    if catalogue.frame.empty:
        raise UserError(f"{store.path}: holds no volume of any scan in {table}")
    wanted, known_ids = _keys(listed), set(_keys(frame))
    rows = store.index.loc[list(catalogue.keys)]
    has_masks = MASK_DIGEST in rows
    known_of = [name for name in QUALITY if name in rows and name not in catalogue.frame]
    catalogue = replace(
        catalogue,
        frame=catalogue.frame.assign(**{name: rows[name].to_numpy() for name in known_of}),
        simulated=store.info.simulated,
        notes=(*notes, *_surplus(wanted, known_ids, store), *_of_earlier_rules(rows, store)),
        excluded=frozenset(exclusions.keys(exclusions.standing(store.path))),
        masks=rows.loc[rows[MASK_DIGEST] != "", MASK_DIGEST].to_dict() if has_masks else {},
    )
    return searched(catalogue, store, table, elsewhere)


def _keys(frame: pd.DataFrame) -> list[Key]:
    return list(map(tuple, frame[KEY].to_numpy().tolist()))


def _surplus(listed: Sequence[Key], named: set[Key], store: VolumeStore) -> tuple[str, ...]:
    """Returns a line for scans of the table without a volume, and one for the reverse."""
    stored = set(store.index.index)
    notes = []
    if absent := [" ".join(key) for key in listed if key not in stored]:
        of = f"of {counted(len(listed), 'scan')} of the table"
        there = f"no volume in {store.path} and"
        rule = counted(
            len(absent), f"{of} has {there} is not used", f"{of} have {there} are not used"
        )
        notes.append(f"{rule}: {few(absent)}")
    if further := sorted(" ".join(key) for key in stored - named):
        of = f"of {counted(len(stored), 'volume')} in {store.path}"
        rule = counted(
            len(further),
            f"{of} is not in the table and is not used",
            f"{of} are not in the table and are not used",
        )
        notes.append(f"{rule}: {few(further)}")
    return tuple(notes)


def _of_earlier_rules(rows: pd.DataFrame, store: VolumeStore) -> tuple[str, ...]:
    """Returns a line where an earlier version preprocessed scans, some of which it got wrong."""
    count = int(older(rows).sum()) if "pipeline" in store.info.settings else 0
    if not count:
        return ()
    of = f"of {counted(len(rows), 'scan')} in {store.path}"
    said = (
        f"{counted(count, f'{of} was', f'{of} were')} preprocessed by an earlier version, "
        "which got scans without skull on a background other than 0, and scans with spikes, wrong: "
        f"preprocess into {store.path} once more makes those anew, and no others"
    )
    return (said,)
