"""The flow of subjects, from those found to those analysed, in the manner of CONSORT.

``flow.csv`` stands beside ``cohort.csv``; every stage of the work appends to it. Columns:

``stage``   ``cohort``, ``preprocessing``, ``quality control``, ... , at last ``analysed``
``step``    ``found`` (the first stage only), ``excluded`` or ``kept``
``reason``  why they were excluded; empty otherwise
``cohort``  the cohort
``class``   the label; where labels are not yet known, the diagnosis at baseline; ``all`` if found
``n``       subjects (a subject counts once in a cohort, however many scans it has)

In every cohort the first stage's found = excluded + kept, and each further stage divides, class by
class, what the stage before it kept; `check` refuses a flow that does not add up.
"""

from collections.abc import Iterable, Sequence

import pandas as pd
from etils import epath

from mri_jax import files
from mri_jax.errors import UserError
from mri_jax.problems import refuse_absent
from mri_jax.showing.forms import grid
from mri_jax.showing.numbers import class_named, of_class
from mri_jax.showing.table import from_rows

COLUMNS = ["stage", "step", "reason", "cohort", "class", "n"]
COHORT = "cohort"
PREPROCESSING = "preprocessing"
QUALITY = "quality control"
ANALYSED = "analysed"
FAILED_PREPROCESSING = "failed preprocessing"
EARLIER = "person of an earlier cohort"
DUPLICATES = "duplicates"
EXCLUDED_BY_QUALITY = "excluded by quality control"
_SUBJECT = ["cohort", "diagnosis", "subject_id"]


def start(kept: pd.DataFrame, excluded: pd.DataFrame, reasons: Iterable[str] = ()) -> pd.DataFrame:
    """Returns the flow of making a cohort table.

    Args:
      kept: Rows with ``subject_id``, ``cohort`` and ``diagnosis`` (the label).
      excluded: One row a subject and cohort: ``cohort``, ``reason``, ``group`` (at baseline).
      reasons: The order in which reasons are listed.

    Returns:
      Rows of `COLUMNS`.
    """
    listed = list(reasons)
    order = [*listed, *sorted(set(excluded["reason"]) - set(listed))]
    rows: list[tuple[str, str, str, str, str, int]] = []
    for cohort in sorted(set(kept["cohort"]) | set(excluded["cohort"])):
        lost = excluded[excluded["cohort"] == cohort]
        labels = _classes(kept[kept["cohort"] == cohort])
        total = len(lost) + sum(labels.values())
        rows.append((COHORT, "found", "", cohort, "all", total))
        for reason in order:
            groups = lost.loc[lost["reason"] == reason, "group"].replace("", "unknown")
            counts = groups.value_counts().sort_index()
            # A reason that applies to nobody is said too: it was asked for.
            if counts.empty:
                rows.append((COHORT, "excluded", reason, cohort, "all", 0))
            rows += [
                (COHORT, "excluded", reason, cohort, str(g), int(n)) for g, n in counts.items()
            ]
        rows += [(COHORT, "kept", "", cohort, name, n) for name, n in labels.items()]
    return check(pd.DataFrame(rows, columns=COLUMNS), "flow")


def extend(flow: pd.DataFrame, stage: str, kept: pd.DataFrame, lost: pd.Series) -> pd.DataFrame:
    """Append one stage of the work.

    Args:
      flow: The flow so far.
      stage: What was done: `PREPROCESSING`, `QUALITY`, `ANALYSED` or another name.
      kept: Rows (``subject_id``, ``cohort``, ``diagnosis``) of the subjects that remain after it.
      lost: Why each other subject was lost: reasons indexed by (cohort, diagnosis, subject_id),
        as `lost_between` gives them.

    Returns:
      A longer flow.

    Raises:
      UserError: Kept and lost are not what the stage before kept.
    """
    if stage in set(flow["stage"]):
        raise UserError(f"flow: stage {stage!r} is there already")
    counts = lost.groupby(level=[0, 1]).value_counts().sort_index()
    rows = [
        (stage, "excluded", reason, cohort, name, int(n))
        for (cohort, name, reason), n in counts.items()
    ]
    last = flow[(flow["step"] == "kept") & (flow["stage"] == flow["stage"].iloc[-1])]
    for cohort in sorted(set(flow["cohort"])):
        labels = _classes(kept[kept["cohort"] == cohort])
        names = sorted({*labels, *last.loc[last["cohort"] == cohort, "class"]})
        rows += [(stage, "kept", "", cohort, name, labels.get(name, 0)) for name in names]
    longer = pd.concat([flow, pd.DataFrame(rows, columns=COLUMNS)], ignore_index=True)
    return check(longer, "flow")


def beside(table: epath.PathLike, name: str) -> epath.Path:
    """Returns ``flow.csv`` beside ``cohort.csv``, ``adni_flow.csv`` beside ``adni.csv``."""
    path = epath.Path(table)
    return path.parent / (name if path.stem == "cohort" else f"{path.stem}_{name}")


def of_table(table: epath.PathLike, rows: pd.DataFrame) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Returns the flow up to a cohort table: the one beside it, or none but the table's own.

    Args:
      table: The table's file.
      rows: Its rows, or those of some of its cohorts.

    Returns:
      The flow of the cohorts in ``rows``, and notes. Where the flow beside the table is that of a
      finished study, or does not end with the subjects of the table (which was changed since), the
      cohort's flow starts with the table, and a note says so.

    Raises:
      UserError: The flow beside the table does not add up.
    """
    anew = start(rows, pd.DataFrame(columns=["cohort", "reason", "group"]))
    path = beside(table, "flow.csv")
    if not path.exists():
        return anew, ()
    there, parts, notes = read(path), [], []
    if ANALYSED in set(there["stage"]):
        return anew, (f"{path.name} is that of a finished study: the flow starts with the table",)
    for cohort, own in anew.groupby("cohort", sort=False):
        earlier = there[there["cohort"] == cohort]
        last = earlier[earlier["stage"] == earlier["stage"].iloc[-1]] if len(earlier) else earlier
        kept, listed = (_kept(part) for part in (last, own))
        if len(earlier) and kept != listed:
            notes.append(
                f"{path.name} ends with {_told(kept)} of {cohort}, and the table has "
                f"{_told(listed)}: it was changed since, and the flow starts with the table"
            )
        parts.append(earlier if len(earlier) and kept == listed else own)
    return join(parts), tuple(notes)


def _kept(flow: pd.DataFrame) -> dict[str, int]:
    kept = flow[(flow["step"] == "kept") & (flow["n"] > 0)]
    return {str(name): int(n) for name, n in kept.groupby("class")["n"].sum().items()}


def _told(kept: dict[str, int]) -> str:
    return ", ".join(f"{n} {class_named(name)}" for name, n in kept.items()) or "nobody"


def join(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Returns the flows of several tables as one; a stage of some tables counts for those alone."""
    order = list(dict.fromkeys(stage for part in parts for stage in part["stage"]))
    whole = pd.concat(parts, ignore_index=True)
    summed = whole.groupby(COLUMNS[:-1], sort=False)["n"].sum().reset_index()
    place = summed["stage"].map({stage: i for i, stage in enumerate(order)})
    ordered = summed.assign(place=place).sort_values("place", kind="stable")
    return check(ordered[COLUMNS].reset_index(drop=True), "flow")


def lost_between(before: pd.DataFrame, after: pd.DataFrame, reason: str | pd.Series) -> pd.Series:
    """Returns why the subjects of ``before`` that ``after`` no longer has were lost, for `extend`.

    Args:
      before: Rows with ``subject_id``, ``cohort``, ``diagnosis``; a subject counts once a cohort.
      after: Rows with the same columns.
      reason: One reason for all, or a series of reasons by subject id.
    """
    here, there = (pd.MultiIndex.from_frame(frame[_SUBJECT]).unique() for frame in (before, after))
    gone = here.difference(there)
    if isinstance(reason, str):
        return pd.Series(reason, index=gone, dtype=object)
    return pd.Series([reason[subject] for *_, subject in gone], index=gone, dtype=object)


def check(flow: pd.DataFrame, source: str) -> pd.DataFrame:
    """Refuse a flow that does not add up.

    Raises:
      UserError: A column is missing or a cohort's numbers do not add up.
    """
    refuse_absent(source, COLUMNS, flow)
    stages = list(dict.fromkeys(flow["stage"]))
    for cohort, rows in flow.groupby("cohort", sort=False):
        found = rows.loc[rows["step"] == "found", "n"].sum()
        before: dict[str, int] | None = None
        for stage in stages:
            here = rows[rows["stage"] == stage]
            if here.empty:  # cohorts joined later have stages of their own
                continue
            lost, kept = (
                here[here["step"] == step].groupby("class")["n"].sum().to_dict()
                for step in ("excluded", "kept")
            )
            if before is None:
                before = {"all": found}
                lost, total = {"all": sum(lost.values())}, {"all": sum(kept.values())}
            else:
                total = kept
            _add_up(f"{source}: cohort {cohort}, stage {stage}", before, lost, total)
            before = kept
    return flow


def _add_up(where: str, before: dict[str, int], lost: dict[str, int], kept: dict[str, int]) -> None:
    for name in sorted(set(before) | set(lost) | set(kept)):
        was, gone, now = before.get(name, 0), lost.get(name, 0), kept.get(name, 0)
        if was != gone + now:
            raise UserError(f"{where}, class {name}: {was} are not {gone} excluded + {now} kept")


def read(path: epath.PathLike) -> pd.DataFrame:
    """Read and check ``flow.csv``."""
    return check(files.read_csv(path, [name for name in COLUMNS if name != "n"]), str(path))


def write(path: epath.PathLike, flow: pd.DataFrame) -> None:
    """Check and write ``flow.csv``."""
    files.write_csv(path, check(flow, str(path))[COLUMNS])


def lines(flow: pd.DataFrame) -> pd.DataFrame:
    """Returns the flow as one line a step and one column a cohort.

    Returns:
      A frame indexed by (stage, step, reason) in the order of the flow, with a column a cohort:
      ``436 (AD 205, CN 231)``.
    """
    order = {stage: place for place, stage in enumerate(dict.fromkeys(flow["stage"]))}
    steps = {"found": 0, "excluded": 1, "kept": 2}
    keys = flow[["stage", "step", "reason"]].drop_duplicates()
    keys = keys.assign(a=keys["stage"].map(order), b=keys["step"].map(steps))
    keys = keys.sort_values(["a", "b"], kind="stable")[["stage", "step", "reason"]]
    index = pd.MultiIndex.from_frame(keys)
    columns = {}
    for cohort in sorted(set(flow["cohort"])):
        rows = flow[flow["cohort"] == cohort].set_index(["stage", "step", "reason"])
        columns[cohort] = [_cell(rows[rows.index == key]) for key in index]
    return pd.DataFrame(columns, index=index)


def _cell(rows: pd.DataFrame) -> str:
    parts = [of_class(name, n) for name, n in rows[["class", "n"]].values if name != "all" and n]
    return f"{rows['n'].sum()} ({', '.join(parts)})" if parts else str(rows["n"].sum())


def as_markdown(flow: pd.DataFrame) -> str:
    """Returns `lines` as a Markdown table, for the terminal and the docs."""
    table = lines(flow)
    rows = [
        [_name(*key), *cells]
        for key, cells in zip(table.index, table.values.tolist(), strict=True)
        if key[1] != "excluded" or any(cell != "0" for cell in cells)
    ]
    return grid(from_rows("flow", "Flow of subjects", ("subjects", *table.columns), rows))


def _name(stage: str, step: str, reason: str) -> str:
    if step == "excluded":
        return f"- {reason}"
    if step == "found":
        return "found"
    return "analysed" if stage == ANALYSED else f"kept ({stage})"


def _classes(rows: pd.DataFrame) -> dict[str, int]:
    counts = rows[_SUBJECT].drop_duplicates()["diagnosis"].value_counts().sort_index()
    return {str(name): int(n) for name, n in counts.items()}
