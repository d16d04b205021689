"""NACC: visits of the Uniform Data Set, MRI sessions, and scans in the folders that it gives out.

``docs/nacc.md`` names the tables and the documents that columns and codes are from.
"""

import re
from pathlib import Path

import pandas as pd

from mri_jax import files
from mri_jax.cohort import images as im
from mri_jax.cohort.assemble import CohortSource, visits_of
from mri_jax.cohort.exports import find_table, not_used
from mri_jax.cohort.nearest import at_scan
from mri_jax.cohort.scan_folders import Layout, find_scans
from mri_jax.cohort.sheets import Reading, Sheet
from mri_jax.errors import UserError
from mri_jax.problems import counted, refuse

STATES = {"1": "CN", "2": "Impaired", "3": "MCI", "4": "Dementia"}
# Whether Alzheimer's disease is the cause of the impairment.
CAUSE = {"1": "primary", "2": "contributing", "3": "not", "7": "not", "8": ""}
SEX = {"1": "M", "2": "F"}
FIELD = {"1": "1.5", "2": "3", "5": "", "7": "", "8": "", "9": ""}
MANUFACTURER = {"1": "GE", "2": "Siemens", "3": "Philips", "5": "", "8": "", "9": ""}
UNTESTED = ("88", "95", "96", "97", "98")
COVARIATES = ("education", "mmse", "cdr", "cdrsb", "apoe4")
_RELEASE = r"(?P<release>\d+)"
_SUBJECT = re.compile(r"NACC\d{6}", re.ASCII | re.IGNORECASE)


def subject_of(text: str) -> str | None:
    """Returns the subject id in a name or cell: ``NACC123456``, ``NACC123456_01``; or None."""
    found = _SUBJECT.search(text)
    return f"sub-{found[0].upper()}" if found else None


def read(tables: Path, images: Path, reading: Reading) -> CohortSource:
    """Reads NACC's visits and MRI sessions and a folder of scans; each centre is a cohort.

    Args:
      tables: The folder with ``investigator_nacc*.csv`` and ``investigator_mri_nacc*.csv``.
      images: The folder that holds the unpacked folders of sessions.
      reading: How.

    Raises:
      UserError: A file, column or scan is missing.
      TableError: Rows are wrong; all of them, of all files.
    """
    visits, file = _visits(tables, reading)
    sessions = _sessions(tables, visits, file, reading)
    found, notes = _scans(images, sessions, reading)
    refuse(reading.problems)
    visits, found = at_scan(visits_of(visits), found, reading.days)
    used = [file, sessions.path]
    return CohortSource(visits, found, COVARIATES, (*notes, *not_used(tables, used)))


def _visits(folder: Path, reading: Reading) -> tuple[pd.DataFrame, Path]:
    path = find_table(folder, rf"(?:investigator|commercial)_(?:ftldlbd_|uds_)?nacc{_RELEASE}",
                      "investigator_nacc*.csv", "nacc")  # fmt: skip
    assert path is not None
    columns = ("NACCID", "NACCADC", "VISITYR", "VISITMO", "VISITDAY", "NACCAGE", "SEX",
               "NACCUDSD", "NACCALZP")  # fmt: skip
    sheet = reading.sheet(path, columns, ("EDUC", "NACCMMSE", "CDRGLOB", "CDRSUM", "NACCNE4S"))
    sheet = sheet.filled().of_subjects("NACCID", subject_of, "NACC123456")
    sites = sheet.sites("NACCADC", "NACCID")
    sheet = sheet.once("NACCID", "VISITYR", "VISITMO", "VISITDAY", apart=["NACCADC"])
    state = sheet.codes("NACCUDSD", STATES, user=True, further=("AD", "OtherDementia"))
    cause = sheet.codes("NACCALZP", CAUSE)
    dementia = (cause == "primary").map({True: "AD", False: "OtherDementia"})
    when = sheet.parts_of_dates("VISITYR", "VISITMO", "VISITDAY")
    visits = pd.DataFrame(
        {
            "subject_id": sheet.rows["NACCID"],
            "cohort": "NACC-" + sites.reindex(sheet.rows.index),
            "code": when.dt.strftime("%Y-%m-%d").fillna(""),
            "date": when,
            "diagnosis": state.mask(state == "Dementia", dementia),
            "age": sheet.numbers("NACCAGE", 18, 120, ("888", "999")),
            "sex": sheet.codes("SEX", SEX, ("9",)),
            "education": sheet.numbers("EDUC", 0, 36, ("99",)),
            "mmse": sheet.numbers("NACCMMSE", 0, 30, UNTESTED),
            "cdr": sheet.numbers("CDRGLOB", 0, 3),
            "cdrsb": sheet.numbers("CDRSUM", 0, 18),
            "apoe4": sheet.numbers("NACCNE4S", 0, 2, ("9",)),
        }
    )
    return visits, path


def _sessions(folder: Path, visits: pd.DataFrame, file: Path, reading: Reading) -> Sheet:
    """Returns the table of MRI sessions."""
    path = find_table(folder, rf"(?:investigator|commercial)_mri_nacc{_RELEASE}",
                      "investigator_mri_nacc*.csv", "nacc")  # fmt: skip
    assert path is not None
    sheet = reading.sheet(
        path, ("NACCID", "MRIYR", "MRIMO", "MRIDY", "NACCMRFI"), ("MRIFIELD", "MRIMANU", "MRIMODL")
    )
    sheet = sheet.filled().of_subjects("NACCID", subject_of, "NACC123456")
    sheet.same_people("NACCID", visits["subject_id"], file)
    return sheet


def _scans(images: Path, sessions: Sheet, reading: Reading) -> tuple[pd.DataFrame, list[str]]:
    """Returns the T1w scans in the folders that NACCMRFI names, dated by their session."""
    known = sessions.text("NACCMRFI") != ""
    rows = sessions.rows[known]
    folder = rows["NACCMRFI"].str.replace(r"\.zip$", "", regex=True)
    facts = (
        pd.DataFrame(
            {
                "folder": folder,
                "subject_id": rows["NACCID"],
                "date": sessions.parts_of_dates("MRIYR", "MRIMO", "MRIDY")[known],
                "field": pd.to_numeric(sessions.codes("MRIFIELD", FIELD)[known]),
                "manufacturer": sessions.codes("MRIMANU", MANUFACTURER)[known],
                "model": sessions.text("MRIMODL")[known],
            }
        )
        .drop_duplicates("folder")
        .set_index("folder")
    )
    whose = facts["subject_id"].to_dict()
    layout = Layout(
        re.compile(r"\.nii(?:\.gz)?$", re.IGNORECASE),
        lambda part: whose.get(part),
        lambda path: next((part for part in path.split("/") if part in whose), ""),
        "folders called as NACCMRFI says, such as mri123/*.nii",
    )
    found, notes = find_scans(images, layout, reading)
    told = facts.reindex(found["visit"]).set_axis(found.index)
    described = [_description(Path(path)) for path in found["path"]]
    found = found.assign(
        description=described, kind="", date=told["date"], field=told["field"].astype(float),
        manufacturer=told["manufacturer"], model=told["model"],
    ).drop(columns=["level", "accelerated", "repeat", "t1"])  # fmt: skip
    found = im.describe(found).drop(columns="kind")
    other = int((~found["t1"]).sum())
    if found["t1"].any():
        notes.append(f"{counted(other, 'scan')} not T1w by series description or name")
        return found, notes
    raise UserError(f"{images}: none of {counted(other, 'scan')} is T1w by its description or name")


def _description(path: Path) -> str:
    """Returns the series description beside a scan (dcm2niix's JSON), or its name."""
    name = re.sub(r"\.nii(\.gz)?$", "", path.name, flags=re.IGNORECASE)
    beside = path.with_name(f"{name}.json")
    said = files.read_json(beside, dict).get("SeriesDescription") if beside.is_file() else None
    return said.strip() if isinstance(said, str) and said.strip() else name
