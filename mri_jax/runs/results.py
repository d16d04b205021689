"""A results folder, read as tidy pandas frames: ``mri_jax.runs.results.load(RUN)``.

The files of a run, written by the study; the names here are the contract::

    config.json        the resolved config
    provenance.json    `simulated`, versions, devices, git commit, fingerprint of the data
    plan.json          {"stages": [{kind, run, stage, repeat, fold, folder, ...}, ...]}
    cohort.csv         the rows that were analysed, with their label
    flow.csv           optional: how many subjects each step of the selection left
    predictions.csv    see mri_jax/evaluation/predictions.py
    metrics.csv        see mri_jax/evaluation/metrics.py
    metrics.jsonl      a line an epoch: run, stage, repeat, fold, epoch, train_loss, ..., best
    filters.npz        optional: `{run}/{stage}/fold{k}/conv1` (3, 3, 3, C_in, F) float32
    feature_maps.npz   optional: the same keys, (X, Y, Z, F) of one scan; `scan` names it

How the statistics read ``predictions.csv``: a target scan scored by a `source` network is a scan
that network never saw, whether its ``split`` is ``test`` or ``adaptation``; a tuned network's
``adaptation`` rows are scores of subjects it trained on, and nothing is ever fitted on them; its
``inner`` rows are scores of the same subjects by networks tuned without them (cross-validation
inside the adaptation part), and thresholds and temperatures of tuned networks come from those
alone.
"""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from etils import epath

from mri_jax import files, strict_json
from mri_jax.arrays import read_npz
from mri_jax.errors import UserError
from mri_jax.evaluation import predictions as table
from mri_jax.evaluation.baselines import LABELS
from mri_jax.evaluation.variants import Variant, completed, of_rows
from mri_jax.problems import counted, refuse_absent
from mri_jax.runs import provenance
from mri_jax.runs.provenance import Provenance
from mri_jax.settings.study import Study

CONFIG = "config.json"
PROVENANCE = provenance.NAME
PLAN = "plan.json"
COHORT = "cohort.csv"
FLOW = "flow.csv"
PREDICTIONS = "predictions.csv"
METRICS = "metrics.csv"
HISTORY = "metrics.jsonl"
FILTERS = "filters.npz"
FEATURE_MAPS = "feature_maps.npz"
FEATURES = "features.npz"
TABLES = "tables"
FIGURES = "figures"
REPORT = "report.html"

# A row a (network, scan): a study of many repeats holds more than any table of an archive.
_TABLE_BYTES = 2**30
_FROM_RUN = "_from_run"
IDENTIFIERS = (
    "run", "stage", "cohort", "split", "subject_id", "session_id", "diagnosis", "sex", "family",
    "source",
)  # fmt: skip


@dataclass(frozen=True)
class Results:
    """One run, as far as it is there.

    Attributes:
      path: The results folder.
      study: What was asked; None where its file is absent or holds no study.
      provenance: What made the results; None where its file is absent.
      plan: A row a planned stage; empty where the file is absent.
      cohort: A row a scan that was analysed; empty where the file is absent.
      flow: The flow of subjects; empty where the file is absent.
      predictions: A row a (network, scan); see `mri_jax.evaluation.predictions`.
      metrics: A row a (network, test set), fold -1 the ensemble; empty where the file is absent.
      history: A row a (network, epoch); empty where the file is absent.
      missing: What is absent or broken, one line each, for the reader of a report.
    """

    path: epath.Path
    study: Study | None
    provenance: Provenance | None
    plan: pd.DataFrame
    cohort: pd.DataFrame
    flow: pd.DataFrame
    predictions: pd.DataFrame
    metrics: pd.DataFrame
    history: pd.DataFrame
    missing: tuple[str, ...]

    @property
    def name(self) -> str:
        """The folder's name, also where it was opened as ``.``."""
        path = files.absolute(self.path)
        return path.name if files.on_bucket(path) else path.resolve().name

    @property
    def simulated(self) -> bool:
        """Whether the scans are simulated; an unknown origin counts as real (no label is worse)."""
        return bool(self.provenance and self.provenance.simulated)

    @property
    def seed(self) -> int:
        """The study's seed; 0 where it is not known."""
        return self.study.seed if self.study else 0

    def network(self, run: str, stage: str, fold: int, repeat: int = 0) -> epath.Path:
        """Returns the folder of a network's checkpoint, for `mri_jax.load_params`.

        It is where ``plan.json`` says, seen from the run or absolutely, or in ``stages`` beside
        the results folder.

        Raises:
          UserError: The run has no such network, or its checkpoint is in neither place.
        """
        asked = {"run": run, "stage": stage, "fold": fold, "repeat": repeat}
        rows = self.plan
        for column, value in asked.items():
            rows = rows[rows[column] == value] if column in rows.columns else rows.iloc[:0]
        if rows.empty:
            raise UserError(f"{self.path}: has no network {asked}")
        written = read_path("folder", rows.iloc[0].to_dict(), self.path)
        places = [*written, files.absolute(self.path).parent / "stages" / written[-1].name]
        for place in places:
            if place.exists():
                return place
        tried = " nor ".join(dict.fromkeys(map(str, places)))
        raise UserError(f"{self.path}: the checkpoint of {asked} is neither {tried}")

    def arrays(self, name: str) -> dict[str, np.ndarray]:
        """Returns the arrays of `FILTERS`, `FEATURE_MAPS` or `FEATURES`; empty without the file.

        Raises:
          UserError: The file is there but is not a readable ``.npz``.
        """
        path = self.path / name
        return read_npz(path) if files.is_there(path) else {}


def written_path(name: str, path: epath.PathLike, run: epath.PathLike) -> dict[str, str]:
    """Returns a path as results folders hold it: absolute, and seen from the results folder.

    The second finds what was moved together with the run, the first what stayed where it was.
    """
    absolute, home = files.absolute(path), files.absolute(run)
    written = {name: str(absolute)}
    if not files.on_bucket(absolute) and not files.on_bucket(home):
        written[f"{name}{_FROM_RUN}"] = os.path.relpath(absolute, home)
    return written


def read_path(name: str, holder: Mapping[str, Any], run: epath.PathLike) -> list[epath.Path]:
    """Returns where a path that `written_path` wrote may be, the likeliest first.

    Versions that wrote a path relative to the directory they ran in are read as they meant it.
    """
    seen = holder.get(f"{name}{_FROM_RUN}")
    places = [epath.Path(holder[name])]
    if isinstance(seen, str) and not files.on_bucket(run):
        places.insert(0, epath.Path(os.path.normpath(files.absolute(run) / seen)))
    return places


def load(run: epath.PathLike) -> Results:
    """Reads a results folder; what is absent besides the predictions is named in ``missing``.

    Args:
      run: The folder, as given to ``launch.py --workdir``.

    Raises:
      UserError: The folder or its ``predictions.csv`` is absent, or a file is malformed.

    Example:
      >>> from mri_jax.runs import results
      >>> run = results.load("runs/finetune_high-smoke")
      >>> run.simulated
      True
      >>> sorted(set(run.predictions["stage"]))
      ['source', 'tuned-high']
      >>> tested = run.metrics.query("cohort == 'ADNI2' and stage == 'source' and fold == -1")
      >>> bool(0 <= tested["auc"].iloc[0] <= 100)
      True
    """
    path = epath.Path(files.expanded(run))
    files.refuse_file(path, "results folder", PREDICTIONS, CONFIG)
    if not path.exists():
        raise UserError(f"{path}: no such results folder")
    if not (path / PREDICTIONS).exists():
        raise UserError(
            f"{path}: holds no {PREDICTIONS}: not a results folder, or the run has not finished; "
            "start the same launch.py command again to continue it"
        )
    missing = [
        f"{name} is {'empty' if (path / name).exists() else 'absent'}"
        for name in (CONFIG, PROVENANCE, PLAN, COHORT, HISTORY)
        if not (path / name).exists() or not files.check_regular(path / name)
    ]
    # Earlier versions wrote no flow; one that is there is not empty.
    if files.is_there(path / FLOW) and not files.check_regular(path / FLOW):
        missing.append(f"{FLOW} is empty")
    found = _frame(path / PREDICTIONS)
    if found.empty:
        raise UserError(f"{path / PREDICTIONS}: holds no rows; the run has not finished")
    study, problem = _study(path / CONFIG)
    validated = table.validate(found, str(path / PREDICTIONS))
    known = _variants(study, validated["run"].unique())
    predictions = completed(validated, known)
    plan = _plan(path / PLAN)
    if "run" in plan:
        table.check_runs(plan, f"{path / PLAN}: stages", first=1)
        plan = completed(plan, known)
    missing += _undescribed(predictions)
    missing += _unfinished(plan, predictions)
    history = _history(path / HISTORY)
    missing += _unlike_plan(plan, history)
    return Results(
        path=path,
        study=study,
        provenance=provenance.read(path),
        plan=plan,
        cohort=_cohort(path / COHORT),
        flow=_checked(path / FLOW, ("stage", "step", "reason", "cohort", "class", "n"), "n"),
        predictions=predictions,
        metrics=_metrics(path / METRICS, known),
        history=history,
        missing=(*missing, *problem),
    )


def _study(path: epath.Path) -> tuple[Study | None, list[str]]:
    """Returns what a run was asked, and why that is not known of one whose file is there."""
    values = _json(path)
    if not values:
        return None, []
    try:
        return Study.written(values), []
    except UserError as error:
        told = "cannot be read as a study of this version, and nothing of it is used"
        return None, [f"{path.name} {told} ({error})"]


def _variants(study: Study | None, runs: Sequence[str]) -> tuple[Variant, ...]:
    """Returns every network variant and baseline of a study.

    Where it is not known, of the runs that are there those that are called as a baseline is:
    results of earlier versions say nothing else of them.
    """
    if study is None:
        labels = sorted(LABELS, key=len, reverse=True)
        found = ((next((b for b in labels if f"{r}-".startswith(f"{b}-")), ""), r) for r in runs)
        return tuple(Variant(b, run[len(b) + 1 :]) for b, run in found if b)
    networks = [run.variant for run in study.runs]
    sources = dict.fromkeys(("", *(variant.source for variant in networks)))
    return (*networks, *(Variant(label, source) for source in sources for label in LABELS))


def _json(path: epath.Path) -> dict[str, Any]:
    return files.read_json(path, dict) if files.is_there(path) else {}


def _plan(path: epath.Path) -> pd.DataFrame:
    stages = _json(path).get("stages", [])
    if not isinstance(stages, list) or not all(isinstance(stage, dict) for stage in stages):
        raise UserError(f"{path}: stages must be a list of objects")
    return pd.DataFrame(stages)


def _frame(path: epath.Path) -> pd.DataFrame:
    if not files.is_there(path):
        return pd.DataFrame()
    # The table of a run that had nothing to say is a line end alone.
    if files.check_regular(path) <= 1 and files.read_bytes(path) in (b"", b"\n"):
        return pd.DataFrame()
    return files.read_csv(path, IDENTIFIERS, _TABLE_BYTES, whole=True)


def _metrics(path: epath.Path, known: Sequence[Variant]) -> pd.DataFrame:
    frame = _frame(path)
    if "run" not in frame:
        return frame
    table.check_runs(frame, str(path))
    return completed(frame, known)


def _undescribed(predictions: pd.DataFrame) -> list[str]:
    """Names the runs that neither the columns nor the config describe."""
    runs = [run for run, variant in of_rows(predictions).items() if not variant.family]
    if not runs:
        return []
    line = (
        f"neither {PREDICTIONS} nor {CONFIG} says what the networks of {', '.join(runs)} are, so "
        "that no table of depth, width or related tasks can show them"
    )
    return [line]


def _cohort(path: epath.Path) -> pd.DataFrame:
    """Returns the rows that were analysed; empty where the file is absent."""
    return _checked(path, ("subject_id", "cohort", "diagnosis"), "age")


def _checked(path: epath.Path, columns: Sequence[str], number: str) -> pd.DataFrame:
    """Returns a table with its columns, the one called ``number`` numeric; or an empty one."""
    frame = _frame(path)
    if not len(frame.columns):
        return frame
    refuse_absent(path, columns, frame)
    cells = frame.get(number, pd.Series(np.nan, frame.index))
    wrong = (pd.to_numeric(cells, errors="coerce").isna() & cells.notna()).to_numpy()
    if wrong.any():
        place = int(np.argmax(wrong))
        value = cells.iloc[place]
        raise UserError(f"{path}: row {place + 2}: {number} {value!r} must be a number or empty")
    return frame


def _history(path: epath.Path) -> pd.DataFrame:
    if not files.is_there(path):
        return pd.DataFrame()
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(files.read_text(path, _TABLE_BYTES).splitlines(), start=1):
        if line.strip():
            rows.append(strict_json.parse(line, f"{path}: line {number}", dict, nan=True))
            differ = sorted(rows[-1].keys() ^ rows[0].keys())
            if differ:
                raise UserError(
                    f"{path}: line {number}: {differ[0]!r} is in some lines and not in others"
                )
    return pd.DataFrame(rows)


def _unlike_plan(plan: pd.DataFrame, history: pd.DataFrame) -> list[str]:
    """Names the networks that have other epochs than the plan says."""
    key = ["run", "stage", "repeat", "fold"]
    if not {*key, "epochs"} <= set(plan.columns) or not set(key) <= set(history.columns):
        return []
    there = Counter(map(tuple, history[key].to_numpy().tolist()))
    planned = plan[[*key, "epochs"]].dropna().to_numpy().tolist()
    wrong = [row for row in planned if there[tuple(row[:-1])] != row[-1]]
    if not wrong:
        return []
    run, stage, repeat, fold, epochs = wrong[0]
    line = (
        f"{HISTORY} holds other epochs of {counted(len(wrong), 'network')} than {PLAN} says "
        f"(first: {run}, {stage}, repeat {repeat}, fold {fold}: {epochs:g})"
    )
    return [line]


def _unfinished(plan: pd.DataFrame, predictions: pd.DataFrame) -> list[str]:
    """Names the planned (run, stage, repeat, fold) without a prediction."""
    key = ["run", "stage", "repeat", "fold"]
    if plan.empty or not set(key) <= set(plan.columns):
        return []
    there = set(map(tuple, predictions[key].drop_duplicates().to_numpy().tolist()))
    planned = plan[key].dropna().drop_duplicates().to_numpy().tolist()
    absent = [row for row in map(tuple, planned) if row not in there]
    if not absent:
        return []
    run, stage, repeat, fold = absent[0]
    line = (
        f"the run is unfinished: {len(absent)} of {counted(len(planned), 'planned network')} "
        f"without predictions (first: {run}, {stage}, repeat {repeat}, fold {fold})"
    )
    return [line]
