import pytest

from mri_jax.cohort.exports import find_export, nothing_found, tables_of
from mri_jax.errors import UserError


def test_the_newest_dated_table_is_read(tmp_path):
    for name in (
        "DXSUM.csv", "DXSUM_05Mar2024.csv", "DXSUM_01Jan2025.csv", "DXSUMMARY.csv",
        "MRIQUALITY_x.csv", "DXSUM_99Foo2030.csv", "._DXSUM_01Jan2026.csv",
    ):  # fmt: skip
        (tmp_path / name).touch()
    found = find_export(tmp_path, "DXSUM")
    assert found is not None
    assert found.name == "DXSUM_01Jan2025.csv"
    (tmp_path / "All_Subjects_DXSUM_07Feb2025.csv").touch()
    found = find_export(tmp_path, "DXSUM")
    assert found is not None
    assert found.name == "All_Subjects_DXSUM_07Feb2025.csv"


@pytest.mark.parametrize(
    "name",
    ["ADNIMERGE.csv", "adnimerge.CSV", "ADNIMERGE_1Jan2025.csv", "ADNIMERGE_01Jan2025 (1).csv",
     "ADNIMERGE(2).csv", "ADNIMERGE_2025-01-01.csv", "ADNIMERGE copy.csv", "ADNIMERGE - Copy.csv",
     "ADNIMERGE - Copy (2).csv", "All_Subjects_ADNIMERGE_01Jan2025.csv",
     "ADNIMERGE_01-Jan-2025.csv"],
)  # fmt: skip
def test_names_under_which_people_have_a_table(tmp_path, name):
    (tmp_path / name).touch()
    assert find_export(tmp_path, "ADNIMERGE") == tmp_path / name
    assert find_export(tmp_path, "DXSUM") is None


def test_of_several_names_the_first_goes_before_and_a_date_before_all(tmp_path):
    for name in ("DXSUM_PDXCONV.csv", "DXSUM_PDXCONV_ADNIALL.csv"):
        (tmp_path / name).touch()
    names = ("DXSUM", "DXSUM_PDXCONV", "DXSUM_PDXCONV_ADNIALL")
    assert find_export(tmp_path, *names) == tmp_path / "DXSUM_PDXCONV.csv"
    (tmp_path / "DXSUM_PDXCONV_ADNIALL_01Jan2024.csv").touch()
    assert find_export(tmp_path, *names) == tmp_path / "DXSUM_PDXCONV_ADNIALL_01Jan2024.csv"


def test_a_second_copy_counts_once_and_must_not_differ(tmp_path):
    for name in ("PTDEMOG (1).csv", "PTDEMOG.csv"):
        (tmp_path / name).write_text("RID\n1\n", encoding="utf-8")
    assert find_export(tmp_path, "PTDEMOG") == tmp_path / "PTDEMOG.csv"
    (tmp_path / "PTDEMOG (1).csv").write_text("RID\n2\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"PTDEMOG.csv and PTDEMOG \(1\).csv are the same table"):
        find_export(tmp_path, "PTDEMOG")


def test_what_is_missing_is_said_with_what_is_there_and_what_to_do(tmp_path):
    (tmp_path / "readme.txt").touch()
    (tmp_path / "DXSUM_01Jan2025.xlsx").touch()
    said = str(nothing_found(tmp_path, "DXSUM.csv", ("DXSUM",), "adni"))
    assert "has no DXSUM.csv" in said
    assert "found DXSUM_01Jan2025.xlsx, readme.txt" in said
    assert said.endswith("DXSUM_01Jan2025.xlsx is no CSV file: unpack it, or save it as CSV")
    (tmp_path / "Study_Data").mkdir()
    (tmp_path / "Study_Data" / "DXSUM_01Jan2025.csv").touch()
    assert str(nothing_found(tmp_path, "DXSUM.csv", ("DXSUM",), "adni")).endswith(
        f"Study_Data/DXSUM_01Jan2025.csv is in a folder: --tables {tmp_path / 'Study_Data'}"
    )
    assert tables_of(tmp_path) == []
