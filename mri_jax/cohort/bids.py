"""BIDS and CAPS trees with their participants and sessions tables; for any disorder.

Column names are looked up by `ALIASES`. Diagnoses pass unchanged unless a code is given for them.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from mri_jax.cohort.assemble import Source
from mri_jax.cohort.identity import canonical, month_of_visit, months_of_visits
from mri_jax.cohort.problems import Problem, refuse
from mri_jax.cohort.reading import (
    as_text,
    disagreeing_rows,
    formula_cells,
    is_missing,
    read_rows,
    to_codes,
    to_numbers,
)
from mri_jax.errors import UserError

ALIASES = {
    "participant": ("participant_id", "subject_id", "subject"),
    "session": ("session_id", "session"),
    "diagnosis": (
        "diagnosis",
        "dx",
        "diagnosis_bl",
        "diagnosis_baseline",
        "diagnosis_sc",
        "dx_group",
        "group",
        "status",
    ),
    "age": ("age", "age_bl", "age_baseline", "age_at_scan", "age_at_first_scan_years"),
    "sex": ("sex", "gender", "m/f"),
    "education": ("education_level", "education", "educ", "years_of_education"),
    "mmse": ("mmse", "mmse_bl"),
    "cdr": ("cdr", "cdr_global"),
}
COVARIATES = ("education", "mmse", "cdr")
SEX = {"M": "M", "F": "F", "male": "M", "female": "F", "man": "M", "woman": "F"}
NO_SESSION = "ses-1"
_RUN = re.compile(r"_run-0*(\d+)")
_NATURAL = re.compile(r"(\d+)")


@dataclass(frozen=True)
class BidsOptions:
    """How a tree is read.

    Attributes:
      cohort: The cohort's name.
      prefer: Parts of a file's name, the most wanted first (``desc-Crop``, ``acq-MPRAGE``); among
        several T1w images of a session the one with the earliest part wins, then the lowest run,
        then one without ``rec-`` or ``ce-``, then the first by name.
      session: The session to label and take the scan of; by default each subject's earliest.
      codes: Diagnoses as they stand in the tables and what they become (``missing`` removes one).
      family: Put before every id (``sub-FAMILY01``), for trees that number their subjects alike.
    """

    cohort: str
    prefer: tuple[str, ...] = ()
    session: str = ""
    codes: tuple[tuple[str, str], ...] = ()
    family: str = ""


def is_bids(folder: Path) -> bool:
    """Whether a folder holds ``sub-*`` folders."""
    return folder.is_dir() and any(p.is_dir() for p in folder.glob("sub-*"))


def scan(folder: Path, problems: list[Problem], prefer: tuple[str, ...] = ()) -> pd.DataFrame:
    """The T1w images of a BIDS tree, as an images table (`mri_jax.cohort.images`)."""
    files = [*folder.glob("sub-*/anat/*_T1w.nii*"), *folder.glob("sub-*/ses-*/anat/*_T1w.nii*")]
    return _images(folder, files, problems, prefer)


def scan_caps(folder: Path, problems: list[Problem], prefer: tuple[str, ...] = ()) -> pd.DataFrame:
    """The images of ``t1-linear`` in a CAPS tree, as an images table."""
    files = list((folder / "subjects").glob("sub-*/ses-*/t1_linear/*T1w.nii*"))
    return _images(folder, files, problems, prefer or ("desc-Crop",))


def read(
    folder: Path, options: BidsOptions, people: Path | None = None, caps: bool = False
) -> Source:
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
      UserError: A file or column is missing, or there are no images.
      TableError: Rows are wrong; all of them.
    """
    problems: list[Problem] = []
    table = people or folder / "participants.tsv"
    if caps and people is None:
        raise UserError(f"{folder}: a CAPS tree has no participants.tsv; give --participants FILE")
    images = (scan_caps if caps else scan)(folder, problems, options.prefer)
    if images.empty:
        raise UserError(f"{folder}: has no T1w image ({_PATTERN[caps]})")
    said = [_rows(table, options, problems)]
    for path in sorted(folder.glob("sub-*/sub-*_sessions.tsv")):
        said.append(_rows(path, options, problems, path.parent.name))
    if (folder / "sessions.tsv").exists():
        said.append(_rows(folder / "sessions.tsv", options, problems))
    refuse(problems)
    visits = _visits(pd.concat(said, ignore_index=True), images, options)
    return Source(
        visits=_named(visits, options),
        images=_named(images, options),
        covariates=COVARIATES,
        notes=(f"{len(images)} T1w images of {images['subject_id'].nunique()} subjects",),
    )


_PATTERN = {
    False: "sub-*/[ses-*/]anat/*_T1w.nii.gz",
    True: "subjects/sub-*/ses-*/t1_linear/*T1w.nii.gz",
}


def _images(
    folder: Path, files: list[Path], problems: list[Problem], prefer: tuple[str, ...]
) -> pd.DataFrame:
    inside = os.path.realpath(folder)
    rows = []
    for path in sorted(files):
        parts = path.relative_to(folder).parts
        if not os.path.realpath(path).startswith(inside + os.sep):
            problems.append(Problem(str(path), None, "", "", "leaves the tree by a link"))
        session = next((part for part in parts if part.startswith("ses-")), NO_SESSION)
        subject = next(part for part in parts if part.startswith("sub-"))
        run = _RUN.search(path.name)
        wanted = next((i for i, part in enumerate(prefer) if part in path.name), len(prefer))
        plain = not ("_rec-" in path.name or "_ce-" in path.name)
        rows.append((canonical(subject), path.name, session, str(path), wanted, run, plain))
    frame = pd.DataFrame(
        [
            {
                "subject_id": subject,
                "image_id": name,
                "date": pd.NaT,
                "visit": session,
                "description": name,
                "level": "bids",
                "field": np.nan,
                "accelerated": False,
                "repeat": bool(run and int(run[1]) > 1),
                "t1": True,
                "quality": np.nan,
                "selected": False,
                "preference": wanted + 0.5 * (not plain),
                "path": path,
                "dicom": False,
            }
            for subject, name, session, path, wanted, run, plain in rows
        ],
        columns=[
            "subject_id", "image_id", "date", "visit", "description", "level", "field",
            "accelerated", "repeat", "t1", "quality", "selected", "preference", "path", "dicom",
        ],
    )  # fmt: skip
    return frame.astype({"date": "datetime64[ns]", "field": float, "repeat": bool, "t1": bool})


def _rows(
    path: Path, options: BidsOptions, problems: list[Problem], subject: str = ""
) -> pd.DataFrame:
    """``participant``, ``session`` ("" if the row is of the person), diagnosis and covariates."""
    optional = [name for name in ALIASES if name != "participant"]
    wanted = {n: a for n, a in ALIASES.items() if not (subject and n == "participant")}
    rows = read_rows(path, wanted, optional)
    if subject:
        rows = rows.assign(participant=subject)
    file = str(path)
    problems += formula_cells(rows, file)
    rows = disagreeing_rows(rows, ["participant", "session"], file, problems)
    # Other disorders have other names: a diagnosis passes unchanged unless a code is given.
    said = rows["diagnosis"].where(~is_missing(rows["diagnosis"]), "")
    session = rows["session"]
    bare = (session != "") & ~session.str.startswith("ses-")
    return pd.DataFrame(
        {
            "subject_id": [_subject(text) for text in rows["participant"]],
            "session": session.mask(bare, "ses-" + session),
            "diagnosis": said.replace(dict(options.codes)).replace("missing", ""),
            "age": to_numbers(rows["age"], file, problems, 0, 120, "age"),
            "sex": to_codes(rows["sex"], SEX, file, problems, "sex"),
            "education": to_numbers(rows["education"], file, problems, 0, 40, "education"),
            "mmse": to_numbers(rows["mmse"], file, problems, 0, 30, "mmse"),
            "cdr": to_numbers(rows["cdr"], file, problems, 0, 3, "cdr"),
        }
    )


def _subject(text: str) -> str:
    spelt = canonical(text)
    return spelt if spelt.startswith("sub-") else f"sub-{spelt}"


def _visits(said: pd.DataFrame, images: pd.DataFrame, options: BidsOptions) -> pd.DataFrame:
    """One row a (subject, session) that a table or an image knows."""
    said = _as_in_tree(said, images)
    of_person = said[said["session"] == ""].drop_duplicates("subject_id").set_index("subject_id")
    facts = ["diagnosis", "age", "sex", *COVARIATES]
    dated = said[said["session"] != ""].replace({"diagnosis": "", "sex": ""}, None)
    dated = dated.groupby(["subject_id", "session"])[facts].first()
    seen = images[["subject_id", "visit"]].drop_duplicates().rename(columns={"visit": "session"})
    known = dated.index.to_frame(index=False)
    # A person with neither a session nor a scan is found all the same, and has no scan.
    alone = of_person.index.difference([*seen["subject_id"], *known["subject_id"]])
    lone = pd.DataFrame({"subject_id": alone, "session": options.session or NO_SESSION})
    visits = pd.concat([known, seen, lone]).drop_duplicates().reset_index(drop=True)
    visits = visits.join(dated, on=["subject_id", "session"])
    visits["month"] = months_of_visits(visits["session"])
    visits["rank"] = _rank(visits, options.session)
    first = visits["rank"] == visits.groupby("subject_id")["rank"].transform("min")
    for name in facts:
        told = visits["subject_id"].map(of_person[name])
        # What is said of the person holds at baseline; sex and education hold at any time.
        lasting = name in ("sex", "education")
        visits[name] = visits[name].where(visits[name].notna(), told.where(first | lasting))
    text = {name: as_text(visits[name]) for name in ("diagnosis", "sex")}
    return visits.assign(
        **text,
        cohort=options.cohort,
        origin=options.cohort,
        code=visits["session"],
        date=pd.Series(pd.NaT, index=visits.index, dtype="datetime64[ns]"),
        group="",
        born=np.nan,
        baseline_rank=visits["rank"],
    ).drop(columns="rank")


def _as_in_tree(said: pd.DataFrame, images: pd.DataFrame) -> pd.DataFrame:
    """Session labels of the tables as the tree writes them: ``ses-M000`` is ``ses-M00``."""
    seen = images[["subject_id", "visit"]].drop_duplicates()
    seen = seen.assign(month=months_of_visits(seen["visit"])).dropna(subset="month")
    label = seen.drop_duplicates(["subject_id", "month"]).set_index(["subject_id", "month"])[
        "visit"
    ]
    keys = zip(said["subject_id"], months_of_visits(said["session"]), strict=True)
    same = [label.get(key, own) for key, own in zip(keys, said["session"], strict=True)]
    return said.assign(session=same)


def _rank(visits: pd.DataFrame, session: str) -> pd.Series:
    """The order of sessions: by month, else by label with numbers as numbers."""
    if session:
        label = session if session.startswith("ses-") else f"ses-{session}"
        chosen = (visits["session"] == label) | (visits["month"] == month_of_visit(label))
        return pd.Series(np.where(chosen, 0.0, np.nan), index=visits.index)

    def order(label: str) -> list[tuple[int, str | int]]:
        return [(0, int(p)) if p.isdigit() else (1, p) for p in _NATURAL.split(label) if p]

    labels = sorted(visits["session"].unique(), key=order)
    by_label = visits["session"].map({label: float(i) for i, label in enumerate(labels)})
    return visits["month"].where(visits["month"].notna(), 1e4 + by_label)


def _named(frame: pd.DataFrame, options: BidsOptions) -> pd.DataFrame:
    if not options.family:
        return frame
    ids = frame["subject_id"].str.removeprefix("sub-")
    return frame.assign(subject_id="sub-" + options.family + ids)
