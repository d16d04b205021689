"""BIDS and CAPS trees with their tables, for any disorder: from folders to visits and images."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from mri_jax import trees
from mri_jax.cohort import sessions as ses
from mri_jax.cohort.assemble import CohortSource
from mri_jax.cohort.bids_tables import (
    COVARIATES,
    FACTS,
    PHENOTYPE,
    TableOptions,
    read_tables,
)
from mri_jax.cohort.identity import canonical, likeness, months_of_visits
from mri_jax.cohort.reading import as_text
from mri_jax.errors import UserError
from mri_jax.problems import Problem, counted, listed, refuse
from mri_jax.trees import NO_SESSION


@dataclass(frozen=True)
class BidsOptions:
    """How a tree is read.

    Attributes:
      cohort: The cohort's name.
      prefer: Parts of a file's name, the most wanted first (``desc-Crop``, ``acq-MPRAGE``); among
        several T1w images of a session the one with the earliest part wins, then the lowest run,
        then one without ``rec-`` or ``ce-``, then the first by name.
      session: The session to label and take the scan of; by default each subject's earliest.
      order: Sessions, the earliest first, where neither their names nor the tables tell their time.
      family: Put before every id (``sub-FAMILY01``), for trees that number their subjects alike.
      root: The folder that links must stay in; by default the tree.
      tables: How cells are read.
    """

    cohort: str
    prefer: tuple[str, ...] = ()
    session: str = ""
    order: tuple[str, ...] = ()
    family: str = ""
    root: Path | None = None
    tables: TableOptions = field(default_factory=TableOptions)


def scan(folder: Path, problems: list[Problem], prefer: tuple[str, ...] = ()) -> pd.DataFrame:
    """Returns the T1w images of a BIDS tree, as an images table (`mri_jax.cohort.images`)."""
    images = _images(trees.bids_scans(folder), folder, problems, prefer)
    return images.assign(visit=images["visit"].replace("", NO_SESSION))


def read(
    folder: Path, options: BidsOptions, people: Path | None = None, caps: bool = False
) -> CohortSource:
    """Read a BIDS or CAPS tree.

    Args:
      folder: The tree.
      options: How.
      people: The participants table; by default ``participants.tsv`` of the tree. It may have a
        session column (as ClinicaDL's label files do), then each row is a visit.
      caps: Whether the tree is CAPS, which holds no participants table of its own.

    Returns:
      Visits and images.

    Raises:
      UserError: A file or column is missing, there are no images, or sessions have no order.
      TableError: Rows or names of files are wrong; all of them.
    """
    problems: list[Problem] = []
    prefer = options.prefer or (("desc-Crop",) if caps else ())
    scans = trees.caps_scans(folder) if caps else trees.bids_scans(folder)
    if not scans:
        raise UserError(trees.no_tree(folder, caps))
    if caps and people is None:
        raise UserError(f"{folder}: a CAPS tree has no participants.tsv; give --participants FILE")
    people = people or folder / "participants.tsv"
    if not people.exists():
        raise UserError(f"{people}: no such file; give the table of subjects: --participants FILE")
    images = _images(scans, options.root or folder, problems, prefer)
    said = read_tables(folder, people, options.tables, problems)
    rows, notes = _as_in_tree(said.rows, images)
    rows, images = _sessions_as_in_tree(rows, images)
    images = images.assign(date=ses.entered(images["visit"].map(ses.day_of)))
    _disagreements(rows, problems)
    refuse(problems)
    visits = _visits(rows, images, options)
    for what in dict.fromkeys(s.absent for s in scans if s.absent):
        names = [str(s.path.relative_to(folder)) for s in scans if s.absent == what]
        share = f"{len(names)} of {counted(len(scans), 'T1w image')}"
        notes.append(f"{share}: {what}: {listed(names)}")
    unknown = sorted(set(images["subject_id"]) - set(rows["subject_id"]))
    if unknown:
        rule = counted(len(unknown), "subject of the tree is", "subjects of the tree are")
        notes.append(f"{rule} in no table: {listed(unknown)}")
    subjects = counted(images["subject_id"].nunique(), "subject")
    found = f"{counted(len(images), 'T1w image')} of {subjects}"
    return CohortSource(
        visits=_named(visits, options),
        images=_named(images, options),
        covariates=COVARIATES,
        notes=(found, *said.notes, *notes),
    )


def _images(
    scans: Sequence[trees.TreeScan],
    within: Path,
    problems: list[Problem],
    prefer: tuple[str, ...],
) -> pd.DataFrame:
    """Returns an images table; a scan that is not there has no path."""
    inside = os.path.realpath(within)
    for found in scans:
        if found.fault:
            problems.append(Problem(str(found.path), None, "", "", found.fault))
        place = os.path.realpath(found.path)
        if not found.absent and not place.startswith(inside + os.sep):
            rule = f"leaves the tree by a link, to {place}; allow it with --root, a folder that"
            problems.append(Problem(str(found.path), None, "", "", f"{rule} holds both"))
    spelt: dict[tuple[str, str], set[str]] = {}
    for found in scans:
        key = (found.subject, trees.session_key(found.session))
        spelt.setdefault(key, set()).add(found.session)
    for (subject, _), labels in spelt.items():
        if len(labels) > 1:
            rule = f"{subject} has one session in {len(labels)} spellings"
            problems.append(Problem(str(within), None, "", " and ".join(sorted(labels)), rule))
    frame = pd.DataFrame(
        [
            {
                "subject_id": canonical(found.subject),
                "image_id": found.path.name,
                "date": pd.NaT,
                "visit": found.session,
                "description": found.path.name,
                "level": "bids",
                "field": np.nan,
                "accelerated": False,
                "repeat": found.run > 1,
                "t1": True,
                "quality": np.nan,
                "selected": False,
                "preference": found.wanted(prefer) + 0.5 * found.altered,
                "path": "" if found.absent else str(found.path),
                "instead": found.absent,
                "dicom": False,
            }
            for found in scans
        ],
        columns=[
            "subject_id", "image_id", "date", "visit", "description", "level", "field",
            "accelerated", "repeat", "t1", "quality", "selected", "preference", "path", "instead",
            "dicom",
        ],
    )  # fmt: skip
    return frame.astype({"date": "datetime64[ns]", "field": float, "repeat": bool, "t1": bool})


def _as_in_tree(rows: pd.DataFrame, images: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Add ``subject_id``: ids as the folders spell them, where only their spelling differs."""
    folders = set(images["subject_id"])
    alike: dict[tuple[str, str], list[str]] = {}
    for name in sorted(folders):
        alike.setdefault(likeness(name), []).append(name)
    ids: dict[str, str] = {}
    notes, changed, unclear = [], [], []
    for text in rows["spelt"].unique():
        bare = canonical(text)
        name = bare if bare.startswith("sub-") else f"sub-{bare}"
        candidates = [] if name in folders else alike.get(likeness(text), [])
        if len(candidates) == 1:
            changed.append(f"{text} is {candidates[0]}")
        elif candidates:
            unclear.append(f"{text} may be {' or '.join(candidates)}")
        ids[text] = candidates[0] if len(candidates) == 1 else name
    if changed:
        rule = counted(len(changed), "id of the tables is", "ids of the tables are")
        same = "spelt otherwise in the tree and taken for the same"
        notes.append(f"{rule} {same}: {listed(changed)}")
    if unclear:
        rule = counted(len(unclear), "id of the tables was", "ids of the tables were")
        notes.append(f"{rule} left alone: {listed(unclear)}")
    return rows.assign(subject_id=rows["spelt"].map(ids)), notes


def _sessions_as_in_tree(
    rows: pd.DataFrame, images: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Sessions of tables as the folders spell them; of a scan without one, as the tables do."""
    said = rows[rows["session"] != ""].groupby("subject_id", sort=False)["session"].agg(list)
    tree = images.groupby("subject_id", sort=False)["visit"].agg(list)
    labels: dict[tuple[str, str], str] = {}
    visits = {}
    for subject in tree.index.union(said.index, sort=False):
        own = said.get(subject, [])
        found = [label for label in dict.fromkeys(tree.get(subject, [])) if label]
        keys = {trees.session_key(label) for label in own}
        if subject in tree.index and not found:
            # No folder and no name tells the session: it is the one that there is.
            alone = own[0] if len(keys) == 1 else NO_SESSION
            visits[subject] = alone
            found = [alone]
        labels |= {(subject, k): v for k, v in ses.aligned(found, own).items()}
    pairs = zip(rows["subject_id"], rows["session"], strict=True)
    rows = rows.assign(session=[labels.get(pair, pair[1]) for pair in pairs])
    visit = [
        label or visits.get(subject, NO_SESSION)
        for subject, label in zip(images["subject_id"], images["visit"], strict=True)
    ]
    return rows, images.assign(visit=visit)


def _disagreements(rows: pd.DataFrame, problems: list[Problem]) -> None:
    """Adds a problem for each row that disagrees with another of the same person and session."""
    stated = rows[rows["kind"] != PHENOTYPE]
    for name in FACTS:
        known = stated[(stated[name].notna()) & (stated[name] != "")]
        first = known.groupby(["subject_id", "session"], sort=False).head(1)
        firsts = first.set_index(["subject_id", "session"])
        for row in known.drop(index=first.index).to_dict("records"):
            before = firsts.loc[(row["subject_id"], row["session"])]
            if row[name] == before[name]:
                continue
            where = f"row {before['row']}"
            where += f" of {before['file']}" if before["file"] != row["file"] else ""
            where += f" ({before['spelt']})" if before["spelt"] != row["spelt"] else ""
            what = "person" if not row["session"] else "person and session"
            rule = f"of {row['spelt']} disagrees with {where}, {str(before[name])!r}: one {what}"
            if not row["session"]:
                rule += " (if the rows are visits, add a column session_id)"
            problems.append(Problem(row["file"], int(row["row"]), name, str(row[name]), rule))


def _visits(said: pd.DataFrame, images: pd.DataFrame, options: BidsOptions) -> pd.DataFrame:
    """Returns one row a (subject, session) that a table or an image knows."""
    known = said.replace({"diagnosis": "", "sex": ""}, None)
    facts = [*FACTS, "time", "days"]
    people = known.loc[known["session"] == "", "subject_id"].unique()
    dated = known[known["session"] != ""].groupby(["subject_id", "session"])[facts].first()
    seen = images[["subject_id", "visit"]].drop_duplicates().rename(columns={"visit": "session"})
    # A person with neither a session nor a scan is found all the same, and has no scan.
    with_session = {*seen["subject_id"], *dated.index.get_level_values(0)}
    alone = [name for name in people if name not in with_session]
    lone = pd.DataFrame({"subject_id": alone, "session": options.session or NO_SESSION})
    visits = pd.concat([dated.index.to_frame(index=False), seen, lone])
    visits = visits.drop_duplicates().reset_index(drop=True)
    visits = visits.join(dated, on=["subject_id", "session"])
    visits["month"] = months_of_visits(visits["session"])
    visits["rank"] = _ranks(visits, images, options)
    first = visits["rank"] == visits.groupby("subject_id")["rank"].transform("min")
    visits = visits.assign(**dict.fromkeys(FACTS))
    # What phenotype tables say only fills what the others leave open.
    for rows in (known[known["kind"] != PHENOTYPE], known[known["kind"] == PHENOTYPE]):
        visits = _filled(visits, rows, first)
    visits = visits.astype(dict.fromkeys(("age", *COVARIATES), float))
    text = {name: as_text(visits[name]) for name in ("diagnosis", "sex")}
    return visits.assign(
        **text,
        cohort=options.cohort,
        origin=options.cohort,
        code=visits["session"],
        date=_dates(visits),
        group="",
        lacking=f"no session {options.session}" if options.session else "",
        unsaid=np.where(visits["subject_id"].isin(said["subject_id"]), "", "in no table"),
        born=np.nan,
        baseline_rank=visits["rank"],
    ).drop(columns=["rank", "time", "days"])


def _filled(visits: pd.DataFrame, rows: pd.DataFrame, first: pd.Series) -> pd.DataFrame:
    """Facts still open, by what rows say of the session, or else of the person."""
    dated = rows[rows["session"] != ""].groupby(["subject_id", "session"])[list(FACTS)].first()
    of_person = rows[rows["session"] == ""].groupby("subject_id")[list(FACTS)].first()
    said = visits[["subject_id", "session"]].join(dated, on=["subject_id", "session"])
    facts = {}
    for name in FACTS:
        told = visits["subject_id"].map(of_person[name])
        # What is said of the person holds at baseline; sex and education hold at any time.
        told = told.where(first | (name in ("sex", "education")))
        facts[name] = visits[name].combine_first(said[name]).combine_first(told)
    return visits.assign(**facts)


def _dates(visits: pd.DataFrame) -> pd.Series:
    """Dates of visits, of one kind in a subject: days of labels, dates, or days of tables."""
    by_label = ses.entered(visits["session"].map(ses.day_of))
    dates = ses.entered(visits["days"])
    for better in (visits["time"].astype("datetime64[ns]"), by_label):
        has = better.notna().groupby(visits["subject_id"]).transform("any")
        dates = better.where(has, dates)
    return dates


def _ranks(visits: pd.DataFrame, images: pd.DataFrame, options: BidsOptions) -> pd.Series:
    """Returns each session's place in its subject's time; NaN for all but the one asked for."""
    scanned = set(zip(images["subject_id"], images["visit"], strict=True))
    ranks = pd.Series(np.nan, index=visits.index)
    unordered = []
    for subject, of in visits.groupby("subject_id", sort=False):
        labels = of["session"].tolist()
        if options.session:
            order = [label for label in [ses.asked(labels, options.session)] if label]
        else:
            known = of.set_index("session")
            clock = ses.Clock(
                time=known["time"].dropna().to_dict(),
                days=known["days"].dropna().to_dict(),
                age=known["age"].dropna().to_dict(),
                scanned=frozenset(label for label in labels if (subject, label) in scanned),
            )
            in_time = ses.in_time(labels, clock, options.order)
            if in_time is None:
                unordered.append(f"{subject} ({', '.join(sorted(labels))})")
            order = in_time or []
        place = {label: float(i) for i, label in enumerate(order)}
        ranks[of.index] = of["session"].map(place).astype(float)
    if unordered:
        raise UserError(
            f"sessions: nothing tells which came first of {listed(unordered)}; give "
            "--session-order FIRST,SECOND, or --session NAME, or a sessions.tsv with acq_time, "
            "age or days"
        )
    return ranks


def _named(frame: pd.DataFrame, options: BidsOptions) -> pd.DataFrame:
    if not options.family:
        return frame
    ids = frame["subject_id"].str.removeprefix("sub-")
    return frame.assign(subject_id="sub-" + options.family + ids)
