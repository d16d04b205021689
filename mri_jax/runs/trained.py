"""A finished run, opened: its networks, its scans, and who was held out where.

::

    run = mri_jax.runs.trained.open_run("runs/finetune_high-demo")
    for member in run.ensemble("cnn5-w1", "source"):
        network = member.load()                      # params, batch_stats, spec
        volumes = run.reader(run.held_out(member)).load(threads=2)

`mri_jax.runs.results` reads a results folder alone; this also needs the folders of its stages and
the store of its volumes, which it finds where the run wrote them, or beside a run that was moved.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import pandas as pd
from etils import epath

from mri_jax import files, stage_note
from mri_jax.errors import UserError
from mri_jax.evaluation.families import SOURCE as SOURCE
from mri_jax.runs import results
from mri_jax.runs.provenance import Provenance
from mri_jax.runs.results import Results
from mri_jax.settings.study import Study, named
from mri_jax.training.checkpoints import Network, load_params
from mri_jax.volumes.normalise import Normalisation
from mri_jax.volumes.store import KEY, VolumeStore
from mri_jax.volumes.stream import Key, Reader


@dataclass(frozen=True)
class Member:
    """One trained network of a run.

    Attributes:
      run: The variant, e.g. ``cnn5-w1``.
      stage: ``source`` or ``tuned-LAYERS``.
      repeat: Which part of the target it was tuned on; 0 for a source network.
      fold: The source fold that was held out.
      fingerprint: Fingerprint of all that determines the network.
      folder: Folder of its stage.
    """

    run: str
    stage: str
    repeat: int
    fold: int
    fingerprint: str
    folder: epath.Path

    @property
    def name(self) -> str:
        """For messages: ``cnn5-w1 source fold 2``."""
        return f"{self.run} {self.stage} fold {self.fold}"

    def load(self) -> Network:
        """Returns the network, as NumPy arrays.

        Raises:
          UserError: Its checkpoint is absent or damaged, or its folder holds another network.
        """
        stage_note.require(self.folder, self.fingerprint)
        return load_params(self.folder)


@dataclass(frozen=True)
class TrainedRun:
    """A run with its networks.

    Attributes:
      results: The results folder.
      study: What was asked.
      members: Every finished network, in the order of the plan.
      store_path: The store of their volumes; it is opened when first asked for.
    """

    results: Results
    study: Study
    members: tuple[Member, ...]
    store_path: epath.Path

    @property
    def normalisation(self) -> Normalisation:
        """How the networks' volumes were normalised."""
        return self.study.data.intensities

    @property
    def simulated(self) -> bool:
        """Whether the networks were trained on simulated scans."""
        return self.results.simulated

    @property
    def variants(self) -> tuple[str, ...]:
        """The network variants, in the order of the plan."""
        return tuple(dict.fromkeys(member.run for member in self.members))

    def stages(self, variant: str) -> tuple[str, ...]:
        """Returns the stages of a variant: ``source``, then what was tuned.

        Raises:
          UserError: The run has no such variant.
        """
        found = dict.fromkeys(member.stage for member in self.members if member.run == variant)
        if not found:
            raise UserError(
                f"network: {variant!r} is not in {self.results.path}; it has "
                f"{', '.join(self.variants)}"
            )
        return tuple(found)

    def ensemble(self, variant: str, stage: str, repeat: int = 0) -> tuple[Member, ...]:
        """Returns the networks of the folds, by fold.

        Raises:
          UserError: The run has none such, or the training of one failed: fewer networks would be
            another ensemble.
        """
        failed = self._failed(variant, stage, repeat)
        if failed:
            fold, reason = min(failed.items())
            raise UserError(
                f"{self.results.path}: {variant} {stage} is incomplete: the training of "
                f"fold {fold} failed ({reason})"
            )
        if stage not in self.stages(variant):
            raise UserError(
                f"stage: {stage!r} is not of {variant}; it has {', '.join(self.stages(variant))}"
            )
        wanted = (variant, stage, repeat)
        found = [m for m in self.members if (m.run, m.stage, m.repeat) == wanted]
        if not found:
            raise UserError(f"repeat: {variant} {stage} has no repeat {repeat}")
        return tuple(sorted(found, key=lambda m: m.fold))

    def _failed(self, variant: str, stage: str, repeat: int) -> dict[int, str]:
        """Returns folds whose training failed, and why."""
        plan = self.results.plan
        if "failed" not in plan:
            return {}
        of_these = (plan[["run", "stage", "repeat"]] == [variant, stage, repeat]).all(axis=1)
        rows = plan[of_these & plan["failed"].notna()]
        return {int(fold): str(why) for fold, why in zip(rows["fold"], rows["failed"], strict=True)}

    @cached_property
    def store(self) -> VolumeStore:
        """The store of the run's volumes.

        Raises:
          UserError: It is absent, or is another store than the run's.
        """
        store = VolumeStore(self.store_path)
        made = self.results.provenance
        if made is None or store.info.fingerprint != made.store_fingerprint:
            raise UserError(f"{self.store_path}: is not the store of {self.results.path}")
        return store

    def study_with(self, table: epath.PathLike | None = None) -> Study:
        """Returns the study with a cohort table that is there; a simulated study needs none.

        Args:
          table: The table. By default it is where the run had it or, if it is not there any more,
            the run's own copy of the rows that it used.

        Raises:
          UserError: The table is in neither place.
        """
        data = self.study.data
        if data.simulated:
            return self.study
        places = (epath.Path(data.cohort), self.results.path / results.COHORT)
        there = (str(place) for place in places if files.is_there(place))
        found = files.expanded(table) if table is not None else next(there, None)
        if found is None:
            raise UserError(
                f"{self.results.path}: its cohort table is neither {places[0]} nor {places[1]}; "
                "name it with --table, or leave out --sanity"
            )
        return replace(self.study, data=replace(data, cohort=found))

    def reader(self, keys: tuple[Key, ...]) -> Reader:
        """Reads scans as the networks saw them; keys are (subject_id, session_id)."""
        return Reader(self.store, keys, self.normalisation)

    def rows(self, member: Member, split: str) -> pd.DataFrame:
        """Returns the member's rows of the predictions table for one split."""
        table = self.results.predictions
        return table[
            (table["run"] == member.run)
            & (table["stage"] == member.stage)
            & (table["repeat"] == member.repeat)
            & (table["fold"] == member.fold)
            & (table["split"] == split)
        ]

    def held_out(self, member: Member) -> tuple[Key, ...]:
        """Returns the scans of the source fold held out from the member (it chose its epoch)."""
        return _keys(self.rows(member, "validation"))

    def trained_on(self, member: Member) -> tuple[Key, ...]:
        """Returns the scans that the member, or the network it was tuned from, learned from."""
        table = self.results.predictions
        source = table[
            (table["run"] == member.run)
            & (table["stage"] == SOURCE)
            & (table["split"] == "validation")
            & (table["fold"] != member.fold)
        ]
        adapted = self.rows(member, "adaptation") if member.stage != SOURCE else table.iloc[:0]
        return _keys(pd.concat([source, adapted]))

    def diagnoses(self, variant: str) -> tuple[str, str]:
        """Returns the diagnoses of label 0 and 1 that the source networks of a variant learned.

        Raises:
          UserError: The run keeps no cohort table, or a label stands for two diagnoses.
        """
        table = self.results.predictions
        shown = (table["run"] == variant) & (table["stage"] == SOURCE)
        asked = table[shown & (table["split"] == "validation")]
        cohort = self.results.cohort
        if not {*KEY, "diagnosis"} <= set(cohort.columns):
            raise UserError(f"{self.results.path}: holds no {results.COHORT} with diagnoses")
        labelled = asked[[*KEY, "label"]].merge(cohort[[*KEY, "diagnosis"]], on=KEY)
        found = [sorted(set(labelled.loc[labelled["label"] == n, "diagnosis"])) for n in (0, 1)]
        if any(len(names) != 1 for names in found):
            raise UserError(f"{self.results.path}: the labels of {variant} are not two diagnoses")
        return found[0][0], found[1][0]


def open_run(
    path: epath.PathLike, stages: epath.PathLike | None = None, store: epath.PathLike | None = None
) -> TrainedRun:
    """Opens a finished run with its networks.

    Args:
      path: The results folder.
      stages: The folder of stages, where the run cannot find it: by default the folders that
        ``plan.json`` names, or ``stages/`` beside the run.
      store: The store of its volumes, where it was moved.

    Raises:
      UserError: It is no results folder, lacks a file, or holds no checkpoint.

    Example:
      Logits of the scans that were held out from a network:

      >>> import jax
      >>> from mri_jax.models import CNN
      >>> from mri_jax.runs.trained import open_run
      >>> run = open_run("runs/finetune_high-smoke")
      >>> member = run.ensemble("cnn2-w1", "source")[0]
      >>> volumes = run.reader(run.held_out(member)).load(threads=2)
      >>> network = member.load()
      >>> logits = jax.jit(lambda x: CNN(network.spec).apply(network.variables, x, train=False))
      >>> logits(volumes).shape == (len(volumes), 2)
      True
    """
    found = results.load(path)
    study = found.study
    if study is None or found.provenance is None:
        name = results.PROVENANCE if study else results.CONFIG
        told = next((f" ({line})" for line in found.missing if line.startswith(name)), "")
        raise UserError(f"{found.path}: holds no {name}{told}; its networks cannot be used")
    if study.data.histogram_reference == "training":
        raise UserError(
            f"{found.path}: its folds normalise volumes each in its own way "
            f"({named('data.histogram_reference')}=training); this needs one way for all of them"
        )
    moved = files.absolute(found.path).parent / "stages"
    if stages:
        moved = epath.Path(files.expanded(stages))
    members = tuple(_members(found, moved, as_written=not stages))
    if not members:
        raise UserError(
            f"{found.path}: none of its networks has a checkpoint where {results.PLAN} says or in "
            f"{moved}; name the folder of stages with --stages"
        )
    return TrainedRun(
        results=found,
        study=study,
        members=members,
        store_path=_store_path(found, found.provenance, moved)
        if store is None
        else epath.Path(files.expanded(store)),
    )


def _members(found: Results, moved: epath.Path, as_written: bool) -> Iterator[Member]:
    """Yields the networks whose folder is there: where the plan says, or of that name in ``moved``.

    Trainings that failed left none.
    """
    plan = found.plan
    if "finished" not in plan:
        return
    rows = plan[plan["finished"].astype(bool) & plan["kind"].ne("baseline")]
    if "failed" in rows:
        rows = rows[rows["failed"].isna()]
    for row in rows.to_dict("records"):
        written = results.read_path("folder", row, found.path)
        places = written * as_written + [moved / written[-1].name]
        folder = next((place for place in places if place.exists()), None)
        if folder is not None:
            yield Member(
                run=row["run"],
                stage=row["stage"],
                repeat=int(row["repeat"]),
                fold=int(row["fold"]),
                fingerprint=row["fingerprint"],
                folder=folder,
            )


def _store_path(found: Results, made: Provenance, stages: epath.Path) -> epath.Path:
    """Returns where the run says its store is, or where its simulated cohorts are if it was moved.

    Raises:
      UserError: The run names no store.
    """
    if made.store is None:
        raise UserError(
            f"{found.path / results.PROVENANCE}: names no store of volumes; name it with --store"
        )
    written = results.read_path("store", made.to_json(), found.path)
    moved = stages / "simulated" / written[-1].parent.name / written[-1].name
    there = [place for place in (*written, moved) if place.exists()]
    return there[0] if there else written[-1]


def _keys(rows: pd.DataFrame) -> tuple[Key, ...]:
    return tuple(sorted(set(zip(rows["subject_id"], rows["session_id"], strict=True))))
