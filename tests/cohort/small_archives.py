"""Downloads of ABIDE, PPMI, OASIS-3 and NACC with made-up subjects: a few rows and empty scans."""

from pathlib import Path

import pandas as pd

Tables = dict[str, pd.DataFrame]


def write(folder: Path, tables: Tables) -> None:
    for name, frame in tables.items():
        path = folder / "tables" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        frame.to_csv(path, index=False)


def touch(folder: Path, *paths: str) -> None:
    for path in paths:
        (folder / "images" / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / "images" / path).touch()


def abide(folder: Path, people: int = 12) -> Tables:
    """Half of each class at two sites, in three layouts of scans; all of a third have autism."""
    rows = [
        {
            "SITE_ID": ("NYU", "UM_1", "SBL")[min(i // people, 2)], "SUB_ID": 50002 + i,
            "FILE_ID": "no_filename", "DX_GROUP": 1 if i >= 2 * people else 1 + i % 2,
            "DSM_IV_TR": 1 - i % 2 if i < 2 * people else -9999,
            "AGE_AT_SCAN": f"{10 + i / 4:.2f}", "SEX": 1 + i % 3 // 2, "FIQ": 100 + i % 5,
            "AGE_AT_MPRAGE": "" if i else 10.5,
        }
        for i in range(2 * people + 3)
    ]  # fmt: skip
    layouts = (
        "NYU/sub-{:07d}/anat/sub-{:07d}_T1w.nii.gz",
        "UM_1/{:07d}/session_1/anat_1/mprage.nii.gz",
        "freesurfer/SBL_{:07d}/mri/orig.mgz",
    )
    touch(folder, *(layouts[min(i // people, 2)].format(*[r["SUB_ID"]] * 2)
                    for i, r in enumerate(rows)))  # fmt: skip
    return {"Phenotypic_V1_0b_preprocessed1.csv": pd.DataFrame(rows)}


STATES = ((1, "Parkinson's Disease"), (2, "Healthy Control"), (4, "Prodromal"), (3, "SWEDD"))


def ppmi(folder: Path, people: int = 24) -> Tables:
    """Four cohorts at two centres; the first person declined, the last was never enrolled."""
    numbers = [3000 + 7 * i for i in range(people)]
    status = [
        {
            "PATNO": patno, "COHORT": STATES[i % 4 if i % 3 else i % 2][0],
            "COHORT_DEFINITION": STATES[i % 4 if i % 3 else i % 2][1],
            "ENROLL_DATE": f"{1 + i % 12:02d}/2012", "ENROLL_AGE": f"{55 + i / 2:.1f}",
            "ENROLL_STATUS": {0: "Declined", people - 1: "screened"}.get(
                i, ("enrolled", "Withdrew", "Complete")[i % 3]),
        }
        for i, patno in enumerate(numbers)
    ]  # fmt: skip
    searched = [
        {
            "Subject ID": patno, "Image ID": 500000 + i, "Study Date": f"{1 + i % 12}/20/2012",
            "Visit": "Baseline", "Description": "MPRAGE GRAPPA", "Type": "Original",
            "Imaging Protocol": "Manufacturer=SIEMENS;Mfg Model=TrioTim;Field Strength=3.0",
        }
        for i, patno in enumerate(numbers)
    ]  # fmt: skip
    touch(folder, *(f"PPMI/{p}/MPRAGE_GRAPPA/2012-{1 + i % 12:02d}-20_10_00_00.0/I{500000 + i}/"
                    f"PPMI_{p}_MR_MPRAGE_br_raw_S1_I{500000 + i}.nii"
                    for i, p in enumerate(numbers)))  # fmt: skip
    pd.DataFrame(searched).to_csv(folder / "images" / "idaSearch.csv", index=False)
    return {
        "Participant_Status_28Nov2026.csv": pd.DataFrame(status),
        "Demographics_28Nov2026.csv": pd.DataFrame(
            [{"PATNO": p, "EVENT_ID": "SC", "SEX": i % 2, "BIRTHDT": f"06/{1950 + i % 9}"}
             for i, p in enumerate(numbers)]),
        "Center-Subject_List.csv": pd.DataFrame(
            [{"PATNO": p, "CNO": (10, 290)[i >= people // 2]} for i, p in enumerate(numbers)]),
    }  # fmt: skip


# day and state of each visit, day of the scan: what the nearest visit says, or a later one.
COURSES = {
    "cn": ("0:CN 400:MCI", 100, "CN"),
    "nearer": ("0:CN 400:AD", 380, "AD"),
    "pmci": ("10:MCI 900:AD", 30, "pMCI"),
    "smci": ("0:MCI 1100:MCI", 5, "sMCI"),
    "other": ("0:OtherDementia", 0, "OtherDementia"),
    "impaired": ("0:Impaired", 40, "Impaired"),
    "far": ("0:CN", 700, ""),
    "unscanned": ("0:AD", None, ""),
}


def courses(people: int) -> list[tuple[int, list[tuple[int, str]], int | None, str]]:
    """A number, visits, the day of the scan and the label of each person."""
    found = []
    for i in range(people):
        text, scan, label = list(COURSES.values())[i % len(COURSES)]
        visits = [(int(day), dx) for day, dx in (v.split(":") for v in text.split())]
        found.append((i, visits, scan, label))
    return found


def oasis3(folder: Path, people: int = 24) -> Tables:
    """Every course three times; of the first person a second, later scan."""
    forms, cdr, scanners = [], [], []
    for i, visits, scan, _ in courses(people):
        name = f"OAS3{i + 1:04d}"
        for day, dx in visits:
            key = {"OASISID": name, "days_to_visit": f"{day:04d}"}
            forms.append(
                {
                    **key, "age at visit": f"{70 + day / 365.25:.2f}", "NORMCOG": int(dx == "CN"),
                    "DEMENTED": int(dx in ("AD", "OtherDementia")), "MCIAMEM": int(dx == "MCI"),
                    "MCIAPLUS": 0, "MCINON1": "", "MCINON2": 0, "IMPNOMCI": int(dx == "Impaired"),
                    "PROBAD": int(dx == "AD" and i % 2), "POSSAD": 0, "PROBADIF": "",
                    "POSSADIF": "", "alzdis": int(dx != "CN" and not i % 2),
                    "alzdisif": 1 if dx == "AD" else 2,
                }
            )  # fmt: skip
            cdr.append({**key, "MMSE": 29, "CDRTOT": 0.5, "CDRSUM": 1})
        if scan is not None:
            label = f"{name}_MR_d{scan:04d}"
            touch(folder, f"{label}/anat2/NIFTI/sub-{name}_ses-d{scan:04d}_run-01_T1w.nii.gz",
                  f"{label}/anat3/NIFTI/sub-{name}_ses-d{scan:04d}_run-02_T1w.nii.gz",
                  f"{label}/anat4/NIFTI/sub-{name}_ses-d{scan:04d}_T2w.nii.gz")  # fmt: skip
            scanners.append(
                {"subject_id": name, "label": label, "MagneticFieldStrength": 3,
                 "Manufacturer": "Siemens", "ManufacturersModelName": "TrioTim"}
            )  # fmt: skip
    touch(folder, "OAS30001_MR_d0390/anat1/NIFTI/sub-OAS30001_ses-d0390_T1w.nii.gz")
    demo = [
        {"OASISID": f"OAS3{i + 1:04d}", "AgeatEntry": 70, "GENDER": 1 + i % 2, "EDUC": 16,
         "APOE": (33, 34, 44)[i % 3]}
        for i in range(people)
    ]  # fmt: skip
    return {
        "UDSd1/csv/OASIS3_UDSd1_diagnoses.csv": pd.DataFrame(forms),
        "UDSb4/csv/OASIS3_UDSb4_cdr.csv": pd.DataFrame(cdr),
        "demo/csv/OASIS3_demographics.csv": pd.DataFrame(demo),
        "MRI-json/csv/OASIS3_MR_json.csv": pd.DataFrame(scanners),
    }


def nacc(folder: Path, people: int = 24) -> Tables:
    """Every course three times, in two centres."""
    codes = {"CN": (1, 8), "MCI": (3, 1), "AD": (4, 1), "OtherDementia": (4, 7), "Impaired": (2, 7)}
    visits, sessions = [], []
    for i, course, scan, _ in courses(people):
        name = f"NACC{100000 + i}"
        start = pd.Timestamp(2010, 1, 1)
        for day, dx in course:
            when = start + pd.Timedelta(days=day)
            visits.append(
                {
                    "NACCID": name, "NACCADC": 100 + i // 8 % 2, "VISITYR": when.year,
                    "VISITMO": when.month, "VISITDAY": when.day, "NACCAGE": 70 + day // 365,
                    "SEX": 1 + i % 2, "EDUC": 99 if i == 1 else 16, "NACCUDSD": codes[dx][0],
                    "NACCALZP": codes[dx][1], "NACCMMSE": 88 if i == 2 else 28, "CDRGLOB": 0.5,
                    "CDRSUM": 1.0, "NACCNE4S": 9 if i == 3 else 1,
                }
            )  # fmt: skip
        if scan is not None:
            when = start + pd.Timedelta(days=scan)
            sessions.append(
                {"NACCID": name, "MRIYR": when.year, "MRIMO": when.month, "MRIDY": when.day,
                 "NACCMRFI": f"mri{500 + i}.zip", "MRIFIELD": 1 + i % 2, "MRIMANU": 1 + i % 3,
                 "MRIMODL": "Signa"}
            )  # fmt: skip
            touch(folder, f"within1yr/nifti/mri{500 + i}/s1.nii",
                  f"within1yr/nifti/mri{500 + i}/s2.nii")  # fmt: skip
            told = {"s1": "Sag MPRAGE", "s2": "Axial T2 FLAIR"}
            for file, text in told.items():
                path = folder / f"images/within1yr/nifti/mri{500 + i}/{file}.json"
                path.write_text(f'{{"SeriesDescription": "{text}"}}', encoding="utf-8")
    return {
        "investigator_nacc63.csv": pd.DataFrame(visits),
        "investigator_mri_nacc63.csv": pd.DataFrame(sessions),
    }
