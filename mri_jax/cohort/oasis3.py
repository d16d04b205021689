"""OASIS-3: clinical forms, demographics and scanners, dated in days since a participant's entry.

``docs/oasis3.md`` names the tables and the documents that columns and codes are from.
"""

import re
from pathlib import Path

import numpy as np
import pandas as pd

from mri_jax.cohort import images as im
from mri_jax.cohort.assemble import CohortSource, visits_of
from mri_jax.cohort.exports import find_table, not_used
from mri_jax.cohort.nearest import at_scan
from mri_jax.cohort.scan_folders import Layout, find_scans
from mri_jax.cohort.sessions import day_of, entered
from mri_jax.cohort.sheets import Reading, Sheet
from mri_jax.problems import counted, refuse

NAME = "OASIS3"
SEX = {"1": "M", "2": "F"}
FLAG = {"0": "no", "1": "yes"}
# Who causes an impairment: its primary cause, a contributing one, or neither.
ROLE = {"0": "", "1": "primary", "2": "contributing", "3": "not"}
MCI = ("MCIAMEM", "MCIAPLUS", "MCINON1", "MCINON2")
STATES = ("NORMCOG", *MCI, "IMPNOMCI", "DEMENTED")
# UDS 2 asks for probable and possible AD, UDS 3 for AD.
CAUSES = {"PROBAD": "PROBADIF", "POSSAD": "POSSADIF", "alzdis": "alzdisif"}
COVARIATES = ("education", "mmse", "cdr", "cdrsb", "apoe4")
_SUBJECT = re.compile(r"OAS3\d{4}", re.ASCII | re.IGNORECASE)
_DAY = re.compile(r"(?:_MR_|sess?-)(d\d{4,5})", re.ASCII)
KEY = ["OASISID", "days_to_visit"]


def subject_of(text: str) -> str | None:
    """Returns the subject id in a name or cell: ``OAS30001``, ``OAS30001_MR_d0129``; or None."""
    found = _SUBJECT.search(text)
    return f"sub-{found[0].upper()}" if found else None


def _session_of(path: str) -> str:
    found = _DAY.search(path)
    return f"ses-{found[1]}" if found else ""


LAYOUT = Layout(
    re.compile(r"_T1w\.nii(?:\.gz)?$", re.IGNORECASE),
    subject_of,
    _session_of,
    "OAS30001_MR_d0129/anat2/NIFTI/*_T1w.nii.gz or sub-OAS30001/ses-d0129/anat/*_T1w.nii.gz",
)


def read(tables: Path, images: Path, reading: Reading) -> CohortSource:
    """Reads OASIS-3's forms and a folder of scans.

    Args:
      tables: The folder with ``OASIS3_UDSd1_diagnoses.csv`` and the others, in whatever folders.
      images: The folder of scans.
      reading: How.

    Raises:
      UserError: A file, column or scan is missing.
      TableError: Rows are wrong; all of them, of all files.
    """
    found, notes = find_scans(images, LAYOUT, reading)
    found = found.assign(date=entered(found["visit"].map(day_of)))
    forms = _table(tables, "UDSd1_diagnoses", reading, (*KEY, *STATES),
                   (*CAUSES, *CAUSES.values(), "age at visit")).filled()  # fmt: skip
    diagnosis, unsaid = _diagnoses(forms)
    days = forms.numbers("days_to_visit", 0, 40000)
    visits = pd.DataFrame(
        {
            "subject_id": forms.rows["OASISID"],
            "cohort": NAME,
            "code": [f"d{day:04.0f}" if np.isfinite(day) else "" for day in days],
            "date": entered(days),
            "diagnosis": diagnosis,
            "unsaid": unsaid,
        }
    )
    people, used = _people(tables, reading)
    visits = visits.join(people, on="subject_id")
    visits["age"] = forms.numbers("age at visit", 18, 120).fillna(visits["entry"] + days / 365.25)
    visits["sex"] = visits["sex"].fillna("")
    scores, more = _scores(tables, forms, reading)
    visits = pd.concat([visits.drop(columns="entry"), scores], axis=1)
    found, scanners = _scanners(tables, found, reading)
    refuse(reading.problems)
    visits, found = at_scan(visits_of(visits), found, reading.days)
    several = int((unsaid != "").sum())
    if several:
        notes.append(f"{counted(several, 'visit')} with two states of cognition: no diagnosis")
    used = [forms.path, *used, *more, *scanners]
    return CohortSource(visits, found, COVARIATES, (*notes, *not_used(tables, used, deep=True)))


def _table(
    folder: Path,
    name: str,
    reading: Reading,
    columns: tuple[str, ...],
    optional: tuple[str, ...] = (),
) -> Sheet:
    path = find_table(folder, rf"OASIS3_{name}", f"OASIS3_{name}.csv", "oasis3", deep=True)
    assert path is not None
    sheet = reading.sheet(path, columns, optional)
    return sheet.of_subjects(columns[0], subject_of, "OAS30001")


def _diagnoses(forms: Sheet) -> tuple[pd.Series, pd.Series]:
    """Returns the diagnosis of each visit, and why there is none where two states are marked."""
    is_ = {name: forms.codes(name, FLAG, user=True) == "yes" for name in (*STATES, *CAUSES)}
    mci = pd.concat([is_[name] for name in MCI], axis=1).any(axis=1)
    states = pd.DataFrame(
        {"CN": is_["NORMCOG"], "MCI": mci, "Impaired": is_["IMPNOMCI"], "AD": is_["DEMENTED"]}
    )
    caused = pd.Series(False, index=states.index)
    for cause, role in CAUSES.items():
        caused |= is_[cause] & forms.codes(role, ROLE).isin(["primary", ""])
    named = states.idxmax(axis=1).astype(object)
    named = named.mask((named == "AD") & ~caused, "OtherDementia")
    count = states.sum(axis=1)
    unsaid = pd.Series("", index=states.index, dtype=object)
    unsaid[count > 1] = "two states of cognition at the visit"
    return named.where(count == 1, ""), unsaid


def _people(folder: Path, reading: Reading) -> tuple[pd.DataFrame, list[Path]]:
    sheet = _table(folder, "demographics", reading, ("OASISID", "AgeatEntry", "GENDER"),
                   ("EDUC", "APOE")).once("OASISID")  # fmt: skip
    alleles = sheet.numbers("APOE", 22, 44)
    people = pd.DataFrame(
        {
            "subject_id": sheet.rows["OASISID"],
            "sex": sheet.codes("GENDER", SEX),
            "entry": sheet.numbers("AgeatEntry", 18, 120),
            "education": sheet.numbers("EDUC", 0, 40),
            "apoe4": (alleles // 10 == 4).astype(float) + (alleles % 10 == 4),
        }
    )
    people["apoe4"] = people["apoe4"].where(alleles.notna())
    return people.set_index("subject_id"), [sheet.path]


def _scores(folder: Path, forms: Sheet, reading: Reading) -> tuple[pd.DataFrame, list[Path]]:
    """Returns MMSE, CDR and sum of boxes of each visit, from form B4 of the same day."""
    names = {"mmse": ("MMSE", 30.0), "cdr": ("CDRTOT", 3.0), "cdrsb": ("CDRSUM", 18.0)}
    path = find_table(folder, "OASIS3_UDSb4_cdr", "OASIS3_UDSb4_cdr.csv", "oasis3", False, True)
    if path is None:
        return pd.DataFrame(np.nan, index=forms.rows.index, columns=list(names)), []
    sheet = _table(folder, "UDSb4_cdr", reading, tuple(KEY), tuple(n for n, _ in names.values()))
    sheet.same_people("OASISID", forms.rows["OASISID"], forms.path)
    scores = pd.DataFrame({k: sheet.numbers(name, 0, high) for k, (name, high) in names.items()})
    day = [form.numbers("days_to_visit", 0, 40000).rename("day") for form in (sheet, forms)]
    theirs = scores.groupby([sheet.rows["OASISID"], day[0]]).first()
    keys = pd.MultiIndex.from_arrays([forms.rows["OASISID"], day[1]])
    return theirs.reindex(keys).set_axis(forms.rows.index), [path]


def _scanners(
    folder: Path, found: pd.DataFrame, reading: Reading
) -> tuple[pd.DataFrame, list[Path]]:
    """Returns images with field strength, manufacturer and model of their session."""
    path = find_table(folder, "OASIS3_MR_json", "OASIS3_MR_json.csv", "oasis3", False, True)
    if path is None:
        return found.assign(**dict.fromkeys(im.MADE_BY, "")), []
    sheet = reading.sheet(path, ("label",), ("MagneticFieldStrength", "Manufacturer",
                                             "ManufacturersModelName"))  # fmt: skip
    facts = pd.DataFrame(
        {
            "field": sheet.numbers("MagneticFieldStrength", 0.1, 12),
            "manufacturer": sheet.text("Manufacturer"),
            "model": sheet.text("ManufacturersModelName"),
        }
    )
    label = sheet.rows["label"]
    key = [label.map(subject_of), label.map(_session_of)]
    of = facts.replace("", None).groupby(key).first()
    there = of.reindex(pd.MultiIndex.from_frame(found[["subject_id", "visit"]]))
    there = there.set_axis(found.index)
    return found.assign(
        field=there["field"].astype(float),
        manufacturer=there["manufacturer"].fillna(""),
        model=there["model"].fillna(""),
    ), [path]
