"""The scans that a study may use, without their volumes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import pandas as pd

from mri_jax.cohort import flow as flows
from mri_jax.cohort import same_people
from mri_jax.cohort.duplicates import Search
from mri_jax.cohort.same_people import NOTHING_SAID, Apart
from mri_jax.cohort.table import KEY
from mri_jax.cohort.task import remove_earlier, select
from mri_jax.settings.study import Study
from mri_jax.volumes.grids import Grid

Key = tuple[str, str]
UNKNOWN = -1
"""The label of a scan whose label is not told."""


@dataclass(frozen=True)
class Examples:
    """Scans with labels: what a network is shown or asked.

    Attributes:
      rows: Rows of `Catalogue.frame`.
      labels: 0 or 1 each; -1 where a network is not told the label.
    """

    rows: tuple[int, ...]
    labels: tuple[int, ...]

    def __add__(self, other: "Examples") -> "Examples":
        """Returns the scans of both, in the catalogue's order."""
        pairs = sorted(zip(self.rows + other.rows, self.labels + other.labels, strict=True))
        return Examples(tuple(row for row, _ in pairs), tuple(label for _, label in pairs))

    def unlabelled(self) -> "Examples":
        """Returns the scans without their labels."""
        return Examples(self.rows, (UNKNOWN,) * len(self.rows))

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class Catalogue:
    """All scans that a study may use, without their volumes.

    Attributes:
      frame: The cohort table's rows that have a volume, sorted by (subject, session), with the
        column ``identity``: SHA-256 of the volume's bytes, or of the settings that generate it.
      grid: Grid of the volumes.
      simulated: Whether they are simulated.
      generated: Whether the study makes them itself, so that settings determine them.
      flow: The flow of subjects so far; see `mri_jax.cohort.flow`.
      apart: Ids that the user says are different people.
      searched: The search for near-identical volumes; None where they are not made yet.
      notes: For the user: which scans are only in the table or only in the store, and whether the
        flow beside the table is of another one.
      excluded: Scans that quality control leaves out (``exclusions.csv`` of the store).
      masks: SHA-256 of masks; empty where the study makes its scans, and without the scans of
        stores of earlier versions, whose index does not tell.
      hidden: Subjects that no task has.
    """

    frame: pd.DataFrame
    grid: Grid
    simulated: bool
    generated: bool
    flow: pd.DataFrame
    apart: Apart = NOTHING_SAID
    searched: Search | None = None
    notes: tuple[str, ...] = ()
    excluded: frozenset[Key] = frozenset()
    masks: Mapping[Key, str] = field(default_factory=dict)
    hidden: frozenset[str] = frozenset()

    @cached_property
    def keys(self) -> tuple[Key, ...]:
        """(subject_id, session_id) of every row."""
        return tuple(map(tuple, self.frame[KEY].to_numpy().tolist()))

    def task(
        self, positive: str, negative: str, cohorts: tuple[str, ...], one_class: bool = False
    ) -> pd.DataFrame:
        """Returns the scans of two diagnoses in some cohorts, with ``label``; the index is the row.

        ``one_class``: one of the diagnoses alone will do, as for a target of controls.
        """
        return select(self._usable, positive, negative, cohorts, one_class).set_index("row")

    @cached_property
    def _usable(self) -> pd.DataFrame:
        """The rows that can be used, with their number as ``row``."""
        frame = self.frame.assign(row=np.arange(len(self.frame)))
        return frame[~frame["subject_id"].isin(self.hidden)]

    def of_these(self, subjects: Sequence[str]) -> "Catalogue":
        """Returns the same rows, of which only those of some subjects can be used."""
        return replace(self, hidden=frozenset(self.frame["subject_id"]) - frozenset(subjects))

    def of_diagnosis(self, diagnosis: str, cohort: str) -> pd.DataFrame:
        """Returns a cohort's scans of a diagnosis, as `task` does, with ``label`` `UNKNOWN`."""
        frame = self._usable.assign(label=UNKNOWN).set_index("row")
        return frame[frame["cohort"].eq(cohort) & frame["diagnosis"].eq(diagnosis)]

    def examples(self, chosen: pd.DataFrame) -> Examples:
        """Returns rows of `task` as examples, in the catalogue's order."""
        chosen = chosen.sort_index()
        return Examples(tuple(map(int, chosen.index)), tuple(map(int, chosen["label"])))

    def identity(self, examples: Examples) -> list[list[str | int]]:
        """Returns what determines a result about examples: ids, identities, masks and labels."""
        pairs = zip(examples.rows, examples.labels, strict=True)
        return [[*self._identities[row], label] for row, label in pairs]

    def triples(self, rows: tuple[int, ...]) -> list[tuple[str, str, str]]:
        """Returns (person, session_id, identity) of rows, as the leakage guard takes them."""
        return [self._triples[row] for row in rows]

    def excluded_among(self, rows: Sequence[int]) -> list[Key]:
        """Returns which scans of ``rows`` quality control leaves out."""
        keys = self.keys
        return [keys[row] for row in rows if keys[row] in self.excluded]

    def measured(self, table: pd.DataFrame) -> "Catalogue":
        """Returns the same scans with what a table says of them once they are made.

        Args:
          table: A cohort table that lists every scan of the catalogue.
        """
        rows = table.set_index(KEY).loc[list(self.keys)].reset_index()[list(table.columns)]
        return replace(self, frame=rows.assign(identity=self.frame["identity"].to_numpy()))

    @cached_property
    def _identities(self) -> list[list[str]]:
        """Ids, identity and mask of every scan."""
        columns = self.frame[[*KEY, "identity"]].to_numpy().tolist()
        masks = [[self.masks[key]] if key in self.masks else [] for key in self.keys]
        return [row + mask for row, mask in zip(columns, masks, strict=True)]

    @cached_property
    def _triples(self) -> list[tuple[str, str, str]]:
        people = same_people.people(self.frame, self.apart)
        columns = self.frame.assign(subject_id=people)[[*KEY, "identity"]]
        return list(map(tuple, columns.to_numpy().tolist()))


def catalogue_of(
    frame: pd.DataFrame,
    identities: Mapping[Key, str],
    study: Study,
    grid: Grid,
    apart: Apart = NOTHING_SAID,
    before: pd.DataFrame | None = None,
) -> Catalogue:
    """Returns the catalogue of a cohort table.

    Args:
      frame: The cohort table.
      identities: Identities of its scans with a volume; see `Catalogue.frame`.
      study: Says which cohorts, and what to do with persons in several.
      grid: Grid of the volumes.
      apart: Ids that the user says are different people.
      before: The flow of subjects up to the table; by default the table's own subjects.
    """
    listed = frame[frame["cohort"].isin(study.cohorts)]
    unrepeated = listed
    if study.data.simulated or study.data.repeated == "remove":
        unrepeated, _ = remove_earlier(listed, study.cohorts, apart)
    keys = map(tuple, unrepeated[KEY].to_numpy().tolist())
    stored = unrepeated.assign(identity=[identities.get(key) for key in keys])
    stored = stored[stored["identity"].notna()].sort_values(KEY).reset_index(drop=True)
    flow = _flow(listed, unrepeated, stored, before)
    own = study.data.simulated
    return Catalogue(stored, grid, simulated=own, generated=own, flow=flow, apart=apart)


def _flow(
    table: pd.DataFrame,
    unrepeated: pd.DataFrame,
    stored: pd.DataFrame,
    before: pd.DataFrame | None,
) -> pd.DataFrame:
    """Returns the flow of subjects up to the usable scans; see `mri_jax.cohort.flow`."""
    nobody = pd.DataFrame(columns=["cohort", "reason", "group"])
    flow = flows.start(table, nobody) if before is None else before
    if len(unrepeated) < len(table):
        lost = flows.lost_between(table, unrepeated, flows.EARLIER)
        flow = flows.extend(flow, "earlier cohorts", unrepeated, lost)
    lost = flows.lost_between(unrepeated, stored, "no volume in the store")
    return flows.extend(flow, "store", stored, lost)
