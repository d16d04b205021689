"""PPMI: status, demographics and centres of the participants, and images as LONI gives them out.

``docs/ppmi.md`` names the tables and the documents that columns and codes are from.
"""

import re
from pathlib import Path

import pandas as pd

from mri_jax.cohort import archive
from mri_jax.cohort.assemble import CohortSource, decimal_year, visits_of
from mri_jax.cohort.exports import find_table, not_used
from mri_jax.cohort.identity import code_of_month, month_of_visit
from mri_jax.cohort.sheets import Reading, Sheet
from mri_jax.problems import refuse

DIAGNOSES = {"1": "PD", "2": "HC", "3": "SWEDD", "4": "Prodromal"}
DEFINITIONS = {
    "Parkinson's Disease": "PD", "Healthy Control": "HC", "SWEDD": "SWEDD",
    "Prodromal": "Prodromal", "Early Imaging": "EarlyImaging",
}  # fmt: skip
# Of these the study has baseline data; of the others it has not.
ENROLLED = ("enrolled", "withdrew", "complete")
STATUS = {name: name for name in (*ENROLLED, "pending", "screened", "declined", "screen_failed",
                                  "excluded")}  # fmt: skip
SEX = {"0": "F", "1": "M", "Female": "F", "Male": "M"}
# Months of the visits whose dates PPMI's image search and tables agree on.
_VISITS = {"v04": 12, "v06": 24, "v08": 36, "v10": 48}
_SUBJECT = re.compile(r"(?:sub-)?(?:PPMI[_-]?)?0*([1-9]\d{3,5})(?:\.0+)?", re.ASCII | re.IGNORECASE)


def subject_of(text: str) -> str | None:
    """Returns the subject id of a PATNO (``3000``, ``PPMI_3000``, ``sub-3000``), or None."""
    found = _SUBJECT.fullmatch(text.strip().strip("\"'"))
    return f"sub-PPMI{found[1]}" if found else None


def visit_of(text: str) -> str:
    """Returns the code of an image's visit: ``sc``, ``bl``, ``m12``; empty where it says none."""
    plain = text.strip().lower().removeprefix("ses-")
    if plain in ("sc", "screening"):
        return "sc"
    month = re.sub(r"^month (\d+)$", r"m\1", plain)
    return code_of_month(float(_VISITS.get(plain, month_of_visit(month))))


def read(tables: Path, images: Path, reading: Reading) -> CohortSource:
    """Reads PPMI's tables and images; each centre is a cohort, or PPMI is one.

    Args:
      tables: The folder with ``Participant_Status_*.csv`` and ``Demographics_*.csv``.
      images: A download tree, the search CSV beside one, or a BIDS tree.
      reading: How.

    Raises:
      UserError: A file, column or image is missing.
      TableError: Rows are wrong; all of them, of all files.
    """
    how = archive.ImageReading(subject_of, reading.today, visit_of, reading.order, reading.missing)
    found, notes = archive.find_images(images, None, how, reading.problems)
    status = _table(tables, r"Participant_Status", reading, ("COHORT", "ENROLL_STATUS"),
                    ("COHORT_DEFINITION", "ENROLL_DATE", "ENROLL_AGE")).once("PATNO")  # fmt: skip
    people = _table(tables, r"Demographics", reading, ("SEX",), ("BIRTHDT",))
    people.same_people("PATNO", status.rows["PATNO"], status.path)
    people = people.once("PATNO")
    facts = pd.DataFrame(
        {
            "subject_id": people.rows["PATNO"],
            "sex": people.codes("SEX", SEX),
            "born": decimal_year(people.months("BIRTHDT", 1900)),
        }
    ).set_index("subject_id")
    subjects = status.rows["PATNO"]
    state = status.codes("ENROLL_STATUS", STATUS)
    enrolled = state.isin(ENROLLED)
    when = status.months("ENROLL_DATE")
    diagnosis = _diagnoses(status)
    visits = pd.DataFrame(
        {
            "subject_id": subjects,
            "code": "bl",
            "month": 0.0,
            "date": when,
            "diagnosis": diagnosis,
            "group": diagnosis.mask(enrolled, ""),
            "age": status.numbers("ENROLL_AGE", 0, 120),
            "baseline_rank": enrolled.map({True: 0.0}),
            "unenrolled": [f"enrolment status {s or 'unknown'}" for s in state],
        }
    ).join(facts, on="subject_id")
    visits["sex"] = visits["sex"].fillna("")
    visits["age"] = visits["age"].fillna(decimal_year(visits["date"]) - visits["born"])
    used, cohort, told = _centres(tables, visits["subject_id"], reading)
    refuse(reading.problems)
    notes += [*told, *not_used(tables, [status.path, people.path, *used])]
    return CohortSource(visits_of(visits.assign(cohort=cohort)), found, (), tuple(notes))


def _table(
    folder: Path, name: str, reading: Reading, columns: tuple[str, ...], optional: tuple[str, ...]
) -> Sheet:
    """Returns a table with its participants' subject ids."""
    path = find_table(folder, name, f"{name}.csv", "ppmi")
    assert path is not None
    sheet = reading.sheet(path, ("PATNO", *columns), optional).filled()
    return sheet.of_subjects("PATNO", subject_of, "3000")


def _diagnoses(status: Sheet) -> pd.Series:
    """Returns the cohort at enrolment, whose code and words must agree."""
    words = status.codes("COHORT_DEFINITION", DEFINITIONS)
    # A code that only its words explain (Early Imaging) is that of the words.
    known = {**DIAGNOSES, **_explained(status, words)}
    code = status.codes("COHORT", known, user=True, further=("EarlyImaging",))
    clash = (
        (words != "")
        & (code != "")
        & (words != code)
        & ~status.rows["COHORT"].isin(list(status.how.codes))
    )
    for said in words[clash].unique():
        status.wrong("COHORT", clash & (words == said), f"is not {said}, as COHORT_DEFINITION says")
    return code.where(code != "", words)


def _explained(status: Sheet, words: pd.Series) -> dict[str, str]:
    early = status.rows["COHORT"][words == "EarlyImaging"]
    return {code: "EarlyImaging" for code in early.unique() if code and code not in DIAGNOSES}


def _centres(
    folder: Path, subjects: pd.Series, reading: Reading
) -> tuple[list[Path], pd.Series | str, list[str]]:
    """Returns the table of centres, the cohort of each subject, and what to tell."""
    path = find_table(folder, r"Center-Subject_List", "Center-Subject_List.csv", "ppmi", False)
    if path is None:
        return [], "PPMI", ["no Center-Subject_List.csv: PPMI is one cohort, not one a centre"]
    sheet = reading.sheet(path, ("PATNO", "CNO")).of_subjects("PATNO", subject_of, "3000")
    sheet.same_people("PATNO", subjects, folder)
    at = sheet.sites("CNO", "PATNO").groupby(sheet.rows["PATNO"]).first()
    named = subjects.map(at)
    lost = int(named.isna().sum())
    notes = [f"{lost} of no centre in {path.name}: cohort PPMI-unknown"] if lost else []
    return [path], "PPMI-" + named.fillna("unknown"), notes
