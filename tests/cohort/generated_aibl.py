"""An AIBL-like download of made-up subjects; see `generated_download`."""

from pathlib import Path

import pandas as pd

from cohort.generated_archive import Archive, Head, Story, day_of
from mri_jax.seeding import generator

AIBL_STORIES = (
    Story("ad", "", "bl=3 m18=3", "AD"),
    Story("cn", "", "bl=1 m18=1 m36=1", "CN"),
    Story("cn-3t", "", "bl=1", "CN", "both-fields"),
    Story("cn-undated", "", "bl=1", "CN", "undated"),
    Story("pmci", "", "bl=2 m18=3", "pMCI", deciding="bl=MCI m18=AD"),
    Story("smci", "", "bl=2 m18=2 m36=2", "sMCI", deciding="bl=MCI m36=MCI"),
    Story("short", "", "bl=2 m18=2 m36=-4", "follow-up too short"),
    Story("undiagnosed", "", "bl=-4 m18=1", "no diagnosis"),
    Story("unscanned", "", "bl=3", "no scan", "none"),
    Story("no-baseline", "", "m18=1", "no baseline"),
)


def write_aibl(out: Path, subjects: int, seed: int, head: Head = lambda *_: None) -> pd.DataFrame:
    """Write an AIBL-like download; returns the truth, one row a subject."""
    rng = generator(seed, "generated AIBL")
    archive = Archive(out / "images", rng, head, number=300000)
    names = ("pdxconv", "neurobat", "ptdemog", "mrimeta", "mri3meta", "mmse", "cdr", "apoeres")
    rows: dict[str, list[dict]] = {name: [] for name in names}
    truth = []
    for number in range(subjects):
        story = AIBL_STORIES[number % len(AIBL_STORIES)]
        rid = 3 + 2 * number
        start = pd.Timestamp(2007, 1, 1) + pd.Timedelta(days=int(rng.integers(0, 700)))
        rows["ptdemog"].append(
            {"RID": rid, "VISCODE": "bl", "PTDOB": f"/{int(rng.integers(1922, 1948))}",
             "PTGENDER": int(rng.integers(1, 3)), "SITEID": 1}
        )  # fmt: skip
        rows["apoeres"].append(
            {"RID": rid, "VISCODE": "bl", "APGEN1": int(rng.integers(2, 5)), "APGEN2": -4}
        )
        for code, dx in (v.split("=") for v in story.visits.split()):
            day = day_of(start, code, rng)
            key = {"RID": rid, "VISCODE": code}
            # Without its own date the baseline has that of the scan, or none at all.
            dated = story.name not in ("cn-3t", "cn-undated") or code != "bl"
            rows["pdxconv"].append({**key, "DXCURREN": dx})
            rows["neurobat"].append({**key, "EXAMDATE": f"{day:%m/%d/%Y}" if dated else "-4"})
            rows["mmse"].append({**key, "MMSCORE": int(rng.integers(15, 31))})
            rows["cdr"].append({**key, "CDGLOBAL": float(rng.choice([0, 0.5, 1, -4]))})
        label = story.outcome if story.outcome in ("AD", "CN", "pMCI", "sMCI") else ""
        archive.cohort = "AIBL"
        image = _aibl_scans(archive, rows, rid, start, story.scans, label)
        truth.append(
            {
                "subject_id": f"sub-AIBL{rid}", "cohort": "AIBL", "story": story.name,
                "label": label, "reason": "" if label else story.outcome,
                "image_id": image if label else "", "deciding": story.deciding,
            }
        )  # fmt: skip
    tables = out / "tables"
    tables.mkdir(parents=True)
    for name, content in rows.items():
        frame = pd.DataFrame(content)
        if not content:
            frame = pd.DataFrame(columns=["RID", "VISCODE", "EXAMDATE"])
        frame.sample(frac=1, random_state=seed).to_csv(
            tables / f"aibl_{name}_01-Jun-2018.csv", index=False
        )
    frame = pd.DataFrame(truth)
    frame.to_csv(out / "truth.csv", index=False)
    return frame


def _aibl_scans(
    archive: Archive, rows: dict, rid: int, start: pd.Timestamp, way: str, label: str
) -> str:
    if way == "none":
        return ""
    table, tesla = ("mri3meta", 3.0) if rid % 4 == 1 else ("mrimeta", 1.5)
    near = start + pd.Timedelta(days=int(archive.rng.integers(0, 50)))
    if way == "both-fields":
        rows["mrimeta"].append(
            {"RID": rid, "VISCODE": "bl", "EXAMDATE": f"{near + pd.Timedelta(days=20):%m/%d/%Y}"}
        )
        archive.image(
            str(rid), "MPRAGE ADNI confirmed", near + pd.Timedelta(days=20), 1.5, label=label
        )
        table = "mri3meta"
    scanned = "-4" if way == "undated" else f"{near:%m/%d/%Y}"
    rows[table].append({"RID": rid, "VISCODE": "bl", "EXAMDATE": scanned})
    archive.image(str(rid), "MPRAGE ADNI confirmed RPT", near, tesla, visit="Base")
    best = archive.image(str(rid), "MPRAGE ADNI confirmed", near, tesla, visit="1", label=label)
    if way == "undated":
        # Its date is known from the folder alone, its visit from the search table.
        pd.DataFrame(archive.searched).to_csv(archive.folder / "idaSearch.csv", index=False)
    return best
