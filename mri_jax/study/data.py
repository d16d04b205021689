"""The scans of a study: a cohort table joined with a store, checked before anything is trained."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import pandas as pd
from etils import epath

from mri_jax.cohort import flow as flows
from mri_jax.cohort import same_people
from mri_jax.cohort.leakage import refuse_same_bytes
from mri_jax.cohort.near_duplicates import Search, compared, refuse_unresolved, search
from mri_jax.cohort.same_people import NOTHING_SAID, Apart
from mri_jax.cohort.table import KEY, read_table
from mri_jax.cohort.task import remove_earlier, select
from mri_jax.errors import UserError, naming
from mri_jax.study.settings import Study
from mri_jax.trees import listed as few
from mri_jax.volumes import described, descriptors
from mri_jax.volumes.grids import Grid
from mri_jax.volumes.store import MASK_DIGEST, VolumeStore, older

Key = tuple[str, str]


@dataclass(frozen=True)
class Examples:
    """Scans with labels: what a network is shown or asked.

    Attributes:
      rows: Rows of `Catalogue.frame`.
      labels: 0 or 1 each.
    """

    rows: tuple[int, ...]
    labels: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class Catalogue:
    """All scans that a study may use, without their volumes.

    Attributes:
      frame: The cohort table's rows that have a volume, sorted by (subject, session), with the
        column ``identity``: SHA-256 of the volume's bytes, or of the settings that generate it.
      grid: Of the volumes.
      simulated: Whether they are simulated.
      generated: Whether the study makes them itself, so that settings determine them.
      flow: The flow of subjects so far; see `mri_jax.cohort.flow`.
      apart: Ids that the user says are different people.
      searched: The search for near-identical volumes; None where they are not made yet.
      notes: For the user: which scans are only in the table or only in the store, and whether the
        flow beside the table is of another one.
      masks: SHA-256 of masks; empty where the study makes its scans, and without the scans of
        stores of earlier versions, whose index does not tell.
    """

    frame: pd.DataFrame
    grid: Grid
    simulated: bool
    generated: bool
    flow: pd.DataFrame
    apart: Apart = NOTHING_SAID
    searched: Search | None = None
    notes: tuple[str, ...] = ()
    masks: Mapping[Key, str] = field(default_factory=dict)

    @property
    def keys(self) -> tuple[Key, ...]:
        """(subject_id, session_id) of every row."""
        return tuple(map(tuple, self.frame[KEY].to_numpy().tolist()))

    def task(
        self, positive: str, negative: str, cohorts: tuple[str, ...], one_class: bool = False
    ) -> pd.DataFrame:
        """The scans of two diagnoses in some cohorts, with ``label``; the index is the row.

        ``one_class``: one of the diagnoses alone will do, as for a target of controls.
        """
        frame = self.frame.assign(row=np.arange(len(self.frame)))
        return select(frame, positive, negative, cohorts, one_class).set_index("row")

    def examples(self, chosen: pd.DataFrame) -> Examples:
        """Rows of `task` as examples, in the catalogue's order."""
        chosen = chosen.sort_index()
        return Examples(tuple(map(int, chosen.index)), tuple(map(int, chosen["label"])))

    def identity(self, examples: Examples) -> list[list[str | int]]:
        """What determines a result about the examples: ids, identities, masks and labels."""
        columns, keys = self.frame[[*KEY, "identity"]].to_numpy(), self.keys
        masks = [[self.masks[key]] if key in self.masks else [] for key in keys]
        pairs = zip(examples.rows, examples.labels, strict=True)
        return [[*columns[row].tolist(), *masks[row], label] for row, label in pairs]

    def triples(self, rows: tuple[int, ...]) -> list[tuple[str, str, str]]:
        """(person, session_id, identity) of rows, as the leakage guard takes them."""
        columns = self._triples
        return [tuple(columns[row].tolist()) for row in rows]

    @cached_property
    def _triples(self) -> np.ndarray:
        people = same_people.people(self.frame, self.apart)
        return self.frame.assign(subject_id=people)[[*KEY, "identity"]].to_numpy()


def open_catalogue(
    table: epath.PathLike,
    store: VolumeStore,
    study: Study,
    identities: Mapping[Key, str] | None = None,
    elsewhere: epath.PathLike | None = None,
) -> Catalogue:
    """Join a cohort table with a store, for the cohorts of a study.

    Args:
      table: The cohort table.
      store: The store.
      study: Says which cohorts, and what to do with persons in several.
      identities: Of scans that the study generates; by default the hashes of the store's index.
      elsewhere: Where descriptions of volumes are kept if the store cannot be written.

    Raises:
      UserError: The table is absent or malformed, or lacks a cohort or every volume; two ids are
        probably one person and nothing beside the table says that they are not; one image stands
        under two ids; or two ids have near-identical volumes and nobody has decided about them.
    """
    with naming("config.data.cohort"):
        frame = read_table(table)
    refuse_unresolved(frame, table)
    apart = same_people.read([table])
    absent = [name for name in study.cohorts if not (frame["cohort"] == name).any()]
    if absent:
        found = ", ".join(sorted(set(frame["cohort"])))
        raise UserError(
            f"{table}: has no scan of cohort {absent[0]!r}; it has {found} (config.source.cohorts, "
            "config.targets and config.finetune.cohort name the cohorts)"
        )
    same_people.refuse_probable(frame[frame["cohort"].isin(study.cohorts)], table, apart)
    known = store.index["sha256"].to_dict()
    if identities is not None:
        known = {key: identity for key, identity in identities.items() if key in known}
    listed = frame[frame["cohort"].isin(study.cohorts)]
    flow, notes = flows.of_table(table, listed)
    catalogue = catalogue_of(
        listed, known, study, store.info.grid, store.info.simulated, apart, flow
    )
    if catalogue.frame.empty:
        raise UserError(f"{store.path}: holds no volume of any scan in {table}")
    keys = [tuple(key) for key in frame[KEY].to_numpy().tolist()]
    chosen = frame["cohort"].isin(study.cohorts)
    listed = [key for key, wanted in zip(keys, chosen, strict=True) if wanted]
    rows = store.index.loc[list(catalogue.keys)]
    notes = (*notes, *_surplus(listed, set(keys), store), *_of_earlier_rules(rows, store))
    catalogue = replace(catalogue, notes=notes)
    for column, what in (("sha256", "volume"), ("input_sha256", "raw image")):
        if column in rows:
            scans = zip(rows["subject_id"], rows["session_id"], rows[column], strict=True)
            refuse_same_bytes(scans, f"{table}: {what}")
    if identities is None and MASK_DIGEST in rows:
        digests = rows.loc[rows[MASK_DIGEST] != "", MASK_DIGEST]
        catalogue = replace(catalogue, masks=digests.to_dict())
    own = described.of_scans(store, catalogue.keys, elsewhere)
    volumes = compared(own, descriptors.mirrored(own))
    return replace(catalogue, searched=search(volumes, catalogue.keys, table, apart))


def _surplus(listed: Sequence[Key], named: set[Key], store: VolumeStore) -> tuple[str, ...]:
    """What is only in the table, of the study's cohorts, or only in the store: a line each."""
    stored = set(store.index.index)
    notes = []
    if absent := [" ".join(key) for key in listed if key not in stored]:
        rule = (
            f"of {len(listed)} scans of the table have no volume in {store.path} and are not used"
        )
        notes.append(f"{len(absent)} {rule}: {few(absent)}")
    if further := sorted(" ".join(key) for key in stored - named):
        rule = f"of {len(stored)} volumes in {store.path} are not in the table and are not used"
        notes.append(f"{len(further)} {rule}: {few(further)}")
    return tuple(notes)


def _of_earlier_rules(rows: pd.DataFrame, store: VolumeStore) -> tuple[str, ...]:
    """A line where scans were preprocessed by a version that got some wrong, unknown which."""
    count = int(older(rows).sum()) if "pipeline" in store.info.settings else 0
    if not count:
        return ()
    said = (
        f"{count} of {len(rows)} scans in {store.path} were preprocessed by an earlier version, "
        "which got scans without skull on a background other than 0, and scans with spikes, wrong: "
        f"preprocess into {store.path} once more makes those anew, and no others"
    )
    return (said,)


def catalogue_of(
    frame: pd.DataFrame,
    identities: Mapping[Key, str],
    study: Study,
    grid: Grid,
    simulated: bool,
    apart: Apart = NOTHING_SAID,
    before: pd.DataFrame | None = None,
) -> Catalogue:
    """The catalogue of a cohort table whose scans with a volume have an identity.

    ``before`` is the flow of subjects up to the table, by default the table's own subjects.
    """
    listed = frame[frame["cohort"].isin(study.cohorts)]
    unrepeated = listed
    if study.data.simulated or study.data.repeated == "remove":
        unrepeated, _ = remove_earlier(listed, study.cohorts, apart)
    keys = map(tuple, unrepeated[KEY].to_numpy().tolist())
    stored = unrepeated.assign(identity=[identities.get(key) for key in keys])
    stored = stored[stored["identity"].notna()].sort_values(KEY).reset_index(drop=True)
    flow = _flow(listed, unrepeated, stored, before)
    return Catalogue(stored, grid, simulated, study.data.simulated, flow, apart)


def _flow(
    table: pd.DataFrame,
    unrepeated: pd.DataFrame,
    stored: pd.DataFrame,
    before: pd.DataFrame | None,
) -> pd.DataFrame:
    """The flow of subjects up to the scans that a study may use; see `mri_jax.cohort.flow`."""
    nobody = pd.DataFrame(columns=["cohort", "reason", "group"])
    flow = flows.start(table, nobody) if before is None else before
    if len(unrepeated) < len(table):
        lost = flows.lost_between(table, unrepeated, flows.EARLIER)
        flow = flows.extend(flow, "earlier cohorts", unrepeated, lost)
    lost = flows.lost_between(unrepeated, stored, "no volume in the store")
    return flows.extend(flow, "store", stored, lost)
