from pathlib import Path

import pytest

from mri_jax.cohort.assemble import Assembled, SubjectSelection, assemble
from mri_jax.cohort.bids import BidsOptions, read
from mri_jax.cohort.bids_tables import TableOptions
from mri_jax.cohort.images import ImageChoice
from mri_jax.cohort.labels import LabelRules
from mri_jax.delimited import words_for_missing
from mri_jax.errors import UserError
from mri_jax.problems import TableError
from mri_jax.trees import ONLY_A_LINK


def write(path: Path, text: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def made(folder: Path, mci: str = "baseline", people: Path | None = None, caps: bool = False,
         **options) -> Assembled:  # fmt: skip
    source = read(folder, BidsOptions(cohort="HERE", **options), people, caps)
    choice, selection = (
        ImageChoice(level="bids", by_month=False),
        SubjectSelection(exclude_groups=()),
    )
    return assemble(source, LabelRules(mci=mci), choice, selection)


@pytest.fixture
def plain(tmp_path) -> Path:
    """Any disorder, no sessions; one person without a scan, one without a diagnosis."""
    write(
        tmp_path / "participants.tsv",
        "participant_id\tGroup\tage\tGender\tEduc\nsub-01\tPD\t61\tmale\t12\n"
        "sub-02\tHC\t64.5\tF\tn/a\nsub-03\tPD\tn/a\tM\t9\nsub-04\tn/a\t50\tF\t9\n",
    )
    for name in ("sub-01", "sub-02", "sub-04"):
        write(tmp_path / name / "anat" / f"{name}_T1w.nii.gz")
    write(tmp_path / "sub-01" / "anat" / "sub-01_T2w.nii.gz")
    return tmp_path


def test_a_plain_tree_of_any_disorder(plain):
    result = made(plain, tables=TableOptions(codes=(("HC", "CN"),)))
    table = result.table.set_index("subject_id")
    assert table["diagnosis"].to_dict() == {"sub-01": "PD", "sub-02": "CN"}
    assert table.loc["sub-02", ["age", "sex"]].tolist() == [64.5, "F"]
    assert table.loc["sub-01", "education"] == 12
    reasons = result.excluded.set_index("subject_id")["reason"].to_dict()
    assert reasons == {"sub-03": "no scan", "sub-04": "no diagnosis"}


def test_a_family_keeps_trees_apart(plain):
    assert made(plain, family="OASIS").table["subject_id"].tolist() == [
        "sub-OASIS01", "sub-OASIS02",
    ]  # fmt: skip


@pytest.mark.parametrize("width", [2, 3])
def test_sessions_of_any_width_and_progression(tmp_path, width):
    write(tmp_path / "participants.tsv", "participant_id\tsex\nsub-ADNI002S0295\tF\nsub-2\tM\n")
    lines = "".join(
        f"ses-M{month:0{width}d}\t{dx}\t{70 + month / 12}\n"
        for month, dx in ((36, "MCI"), (0, "MCI"), (12, "MCI"), (6, "n/a"))
    )
    header = "session_id\tdiagnosis\tage\n"
    write(tmp_path / "sub-2" / "sub-2_sessions.tsv", header + lines.replace("MCI\t73", "AD\t73"))
    write(
        tmp_path / "sub-ADNI002S0295" / "sub-ADNI002S0295_sessions.tsv",
        header + lines.replace("M0", "m0").replace("M36", "m36"),
    )
    for name, label in (("sub-2", f"ses-M{0:0{width}d}"), ("sub-ADNI002S0295", "ses-m00")):
        write(tmp_path / name / label / "anat" / f"{name}_{label}_T1w.nii")
    table = made(tmp_path, mci="progression").table.set_index("subject_id")
    assert table["diagnosis"].to_dict() == {"sub-2": "pMCI", "sub-ADNI002S0295": "sMCI"}
    assert table["age"].tolist() == [70.0, 70.0]
    assert table.loc["sub-2", "session_id"] == f"ses-M{0:0{width}d}"
    assert made(tmp_path).table["diagnosis"].tolist() == ["MCI", "MCI"]


def test_the_earliest_session_or_the_one_asked_for(tmp_path):
    write(tmp_path / "participants.tsv", "participant_id\tdiagnosis\nsub-1\tAD\n")
    for label in ("ses-10", "ses-2"):
        write(tmp_path / "sub-1" / label / "anat" / f"sub-1_{label}_T1w.nii")
    assert made(tmp_path).table["session_id"].tolist() == ["ses-2"]
    asked = made(tmp_path, session="10")
    assert asked.excluded["reason"].tolist() == []
    assert asked.table["session_id"].tolist() == ["ses-10"]
    assert made(tmp_path, session="7").excluded["reason"].tolist() == ["no baseline"]


def test_the_preferred_of_several_t1w_images(tmp_path):
    write(tmp_path / "participants.tsv", "participant_id\tdiagnosis\nsub-1\tAD\n")
    anat = tmp_path / "sub-1" / "anat"
    for part in ("acq-b_run-2_", "acq-b_run-1_", "acq-b_run-1_rec-norm_", "acq-a_run-1_"):
        write(anat / f"sub-1_{part}T1w.nii.gz")
    assert made(tmp_path).table["image_id"].tolist() == ["sub-1_acq-a_run-1_T1w.nii.gz"]
    chosen = made(tmp_path, prefer=("acq-b",)).table.iloc[0]
    assert chosen["image_id"] == "sub-1_acq-b_run-1_T1w.nii.gz"
    assert chosen["runner_up"] == "sub-1_acq-b_run-2_T1w.nii.gz: a repeat"


def test_caps_takes_the_cropped_image_and_a_label_file(tmp_path):
    caps, people = tmp_path / "caps", tmp_path / "labels.tsv"
    folder = caps / "subjects" / "sub-ADNI002S0295" / "ses-M000" / "t1_linear"
    for desc in ("", "desc-Crop_"):
        name = f"sub-ADNI002S0295_ses-M000_space-MNI152NLin2009cSym_{desc}res-1x1x1_T1w.nii.gz"
        write(folder / name)
    write(people, "participant_id\tsession_id\tdiagnosis\nsub-ADNI002S0295\tses-M000\tAD\n"
                  "sub-ADNI002S0413\tses-M000\tCN\n")  # fmt: skip
    result = made(caps, people=people, caps=True)
    assert "desc-Crop" in result.table["image"].iloc[0]
    assert result.table["diagnosis"].tolist() == ["AD"]
    assert result.excluded[["subject_id", "reason"]].values.tolist() == [
        ["sub-ADNI002S0413", "no scan"]
    ]
    with pytest.raises(UserError, match="give --participants FILE"):
        read(caps, BidsOptions(cohort="X"), caps=True)


def tree(folder: Path, people: str, *scans: str) -> Path:
    """A tree of participants and scans."""
    write(folder / "participants.tsv", people)
    for name in scans:
        write(folder / name)
    return folder


def one(subject: str = "sub-1", session: str = "") -> str:
    label = f"ses-{session}" if session else ""
    middle = f"{label}/" if label else ""
    return f"{subject}/{middle}anat/{subject}_{label + '_' if label else ''}T1w.nii.gz"


def test_ids_without_the_padding_or_marks_of_their_folders(tmp_path):
    people = "participant_id\tdx\n1\tAD\nsub-02\tCN\nA_3\tAD\n50772\tCN\n"
    tree(tmp_path, people, *(one(f"sub-{n}") for n in ("001", "2", "A3", "0050772")))
    result = made(tmp_path)
    assert dict(result.table[["subject_id", "diagnosis"]].values.tolist()) == {
        "sub-001": "AD", "sub-2": "CN", "sub-A3": "AD", "sub-0050772": "CN",
    }  # fmt: skip
    assert any(n.startswith("4 ids of the tables are spelt otherwise") for n in result.notes)


def test_an_id_that_may_be_two_folders_is_left_alone(tmp_path):
    people = "participant_id\tdx\n001\tAD\n1\tCN\n"
    tree(tmp_path, people, one("sub-01"), one("sub-1"))
    result = made(tmp_path)
    assert result.table["subject_id"].tolist() == ["sub-1"]
    assert any("001 may be sub-01 or sub-1" in note for note in result.notes)


@pytest.mark.parametrize(
    ("people", "said"),
    [
        ("participant_id\tdx\nsub-1\tCN\n1\tAD\n",
         "row 3: column diagnosis: 'AD' of 1 disagrees with row 2 (sub-1), 'CN': one person"),
        ("participant_id\tsession_id\tdx\nsub-1\tM00\tCN\nsub-1\tses-M000\tAD\n",
         "'AD' of sub-1 disagrees with row 2, 'CN': one person and session"),
        ("participant_id\tdx\tage\nsub-1\tCN\t60\nsub-1\tCN\t63\n",
         "'63.0' of sub-1 disagrees with row 2, '60.0': one person (if the rows are visits"),
        ("participant_id\tdx\nsub-1\tCN\nn/a\tAD\n", "row 3: column participant_id: is empty"),
    ],
)  # fmt: skip
def test_two_rows_of_one_person_are_both_named(tmp_path, people, said):
    tree(tmp_path, people, one())
    with pytest.raises(TableError) as error:
        made(tmp_path)
    assert said in str(error.value)


def test_rows_in_two_spellings_that_agree_are_one(tmp_path):
    people = "participant_id\tsession_id\tdx\tage\nsub-1\tM00\tCN\t60\n1\tses-M000\tn/a\t60.0\n"
    tree(tmp_path, people, one(session="M00"))
    assert made(tmp_path).table[["session_id", "diagnosis", "age"]].values.tolist() == [
        ["ses-M00", "CN", 60.0]
    ]


def test_screening_and_baseline_have_their_own_facts_and_scans(tmp_path):
    table = "session_id\tage\tdx\nses-SC\t60.1\tProdromal\nses-BL\t60.4\tPD\n"
    write(tmp_path / "sub-1" / "sub-1_sessions.tsv", table)
    tree(tmp_path, "participant_id\nsub-1\n", one(session="BL"))
    only = made(tmp_path).table.iloc[0]
    assert only[["session_id", "diagnosis", "age"]].tolist() == ["ses-BL", "PD", 60.4]
    assert made(tmp_path, session="SC").excluded["reason"].tolist() == ["no scan"]
    write(tmp_path / one(session="SC"))
    both = made(tmp_path, session="SC").table.iloc[0]
    assert both[["diagnosis", "age"]].tolist() == ["Prodromal", 60.1]
    assert "ses-SC" in both["image"]
    assert "ses-BL" in made(tmp_path).table["image"].iloc[0]


def test_sessions_in_names_alone_are_ordered_by_the_tables_or_the_user(tmp_path):
    for session in ("fu", "pre"):
        write(tmp_path / "sub-1" / "anat" / f"sub-1_ses-{session}_T1w.nii")
    tree(tmp_path, "participant_id\tdx\nsub-1\tCN\n")
    with pytest.raises(UserError, match=r"came first of sub-1 \(ses-fu, ses-pre\); give --ses"):
        made(tmp_path)
    assert made(tmp_path, order=("pre", "fu")).table["session_id"].tolist() == ["ses-pre"]
    assert made(tmp_path, session="fu").table["session_id"].tolist() == ["ses-fu"]
    for column, values in (
        ("age", "61 60"),
        ("days", "90 0"),
        ("acq_time", "1901-02-01 1901-01-01"),
    ):
        late, early = values.split()
        text = f"session_id\t{column}\nses-fu\t{late}\nses-pre\t{early}\n"
        write(tmp_path / "sub-1" / "sub-1_sessions.tsv", text)
        assert made(tmp_path).table["session_id"].tolist() == ["ses-pre"]


def test_days_of_oasis_find_the_nearest_scan_within_reach(tmp_path):
    rows = "session_id\tdx\tage\nses-d0000\tCN\t65.0\nses-d2384\tAD\t71.5\n"
    write(tmp_path / "sub-1" / "sub-1_sessions.tsv", rows)
    tree(tmp_path, "participant_id\nsub-1\n", one(session="d0129"))
    write(tmp_path / one(session="d2430"))
    assert (
        "(nearest: 129 days after; --days 129 or more takes it)"
        in made(tmp_path).excluded["detail"].iloc[0]
    )
    source = read(tmp_path, BidsOptions(cohort="HERE"))
    how = ImageChoice(level="bids", days=180), SubjectSelection(exclude_groups=())
    row = assemble(source, LabelRules(mci="baseline"), *how).table.iloc[0]
    assert row[["diagnosis", "days_from_baseline"]].tolist() == ["CN", 129.0]
    assert row["age"] == pytest.approx(65.0 + 129 / 365.25, abs=0.005)
    late = made(tmp_path, session="d2384").table.iloc[0]
    assert late[["diagnosis", "days_from_baseline"]].tolist() == ["AD", 46.0]


def test_a_tree_without_dates_says_which_sessions_have_a_scan(tmp_path):
    people = "participant_id\tsession_id\tdx\nsub-1\t1\tCN\nsub-1\t2\tAD\n"
    tree(tmp_path, people, one(session="02"))
    detail = made(tmp_path).excluded["detail"].iloc[0]
    assert detail == "no T1w image of visit ses-1 (found: ses-02)"


def test_phenotype_tables_fill_what_the_others_do_not_say(tmp_path):
    tree(tmp_path, "participant_id\tsex\nsub-1\tF\nsub-2\tM\n", one(), one("sub-2"))
    write(tmp_path / "phenotype" / "demo.tsv",
          "participant_id\tsession_id\tage\tsex\tdiagnosis\nsub-1\tses-1\t60\tM\tCN\n"
          "sub-2\tses-1\t63\tM\tAD\n")  # fmt: skip
    write(tmp_path / "phenotype" / "bad.tsv", "participant_id\tage\nsub-1\told\n")
    write(tmp_path / "phenotype" / "other.tsv", "who\tage\nme\t3\n")
    write(tmp_path / "phenotype" / "._demo.tsv", "\0\0")
    result = made(tmp_path)
    assert result.table[["diagnosis", "age", "sex"]].values.tolist() == [
        ["CN", 60.0, "F"], ["AD", 63.0, "M"],
    ]  # fmt: skip
    said = "\n".join(result.notes)
    assert "classes: column 'diagnosis' of phenotype/demo.tsv" in said
    assert "bad.tsv: row 2: column age: 'old' is not a number (table not used)" in said
    assert "other.tsv: not used: has no column participant_id" in said


def test_the_column_of_classes_is_the_first_that_has_any_or_the_one_asked_for(tmp_path):
    people = "participant_id\tsex\tgroup\tdiagnosis\nsub-1\tF\tCN\tn/a\nsub-2\tM\tAD\tn/a\n"
    tree(tmp_path, people, one(), one("sub-2"))
    result = made(tmp_path)
    assert result.table["diagnosis"].tolist() == ["CN", "AD"]
    assert "classes: column 'group' of participants.tsv" in result.notes
    by_sex = made(tmp_path, tables=TableOptions(diagnosis_column="sex"))
    assert by_sex.table[["diagnosis", "sex"]].values.tolist() == [["F", "F"], ["M", "M"]]
    for column, said in (("", "column of diagnoses with a class (looked for diagnosis, dx,"),
                         ("iq", "no table has a column 'iq' with a class; found")):  # fmt: skip
        write(tmp_path / "participants.tsv", "participant_id\tsex\nsub-1\tF\nsub-2\tM\n")
        with pytest.raises(UserError) as error:
            made(tmp_path, tables=TableOptions(diagnosis_column=column))
        assert said in str(error.value)
        assert "participants.tsv (participant_id, sex)" in str(error.value)
        assert "--diagnosis-column NAME" in str(error.value)
        assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("cell", "options", "wanted"),
    [
        ("None", {}, []),
        ("None", {"codes": (("None", "HC"),)}, ["HC"]),
        ("-1", {"codes": (("-1", "HC"),)}, ["HC"]),
        ("-1.0", {"codes": (("-1", "HC"),)}, ["HC"]),
        ("#N/A", {}, []),
        ("-9", {"missing": words_for_missing("+-9")}, []),
        ("none of these", {}, ["none of these"]),
    ],
)
def test_codes_count_before_what_is_missing(tmp_path, cell, options, wanted):
    people = f"participant_id\tdx\nsub-1\t{cell}\nsub-2\tSCZ\n"
    tree(tmp_path, people, one(), one("sub-2"))
    result = made(tmp_path, tables=TableOptions(**options))
    found = result.table.set_index("subject_id")["diagnosis"].to_dict()
    assert [found[name] for name in ("sub-1",) if name in found] == wanted
    if cell == "None" and not wanted:
        assert "1 diagnosis 'None' counts as missing; --code=None=NAME" in "\n".join(result.notes)


def test_coarse_ages_and_codes_of_sex_are_options(tmp_path):
    people = (
        "participant_id\tdx\tage\tsex\nsub-1\tCN\t89+\t1\nsub-2\tAD\t18-38\t2\nsub-3\tAD\t-\tO\n"
    )
    tree(tmp_path, people, *(one(f"sub-{n}") for n in "123"))
    with pytest.raises(TableError) as error:
        made(tmp_path)
    assert "'89+' is a bound or a range, not an age (--coarse-ages takes it as 89)" in str(
        error.value
    )
    assert "'1' is unknown; known: M, F, O" in str(error.value)
    assert "--sex-code 1=M --sex-code 2=F" in str(error.value)
    how = TableOptions(coarse_ages=True, sex_codes=(("1", "M"), ("2", "F")))
    table = made(tmp_path, tables=how).table
    assert table["age"].tolist()[:2] == [89.0, 28.0]
    assert table["age"].isna().tolist() == [False, False, True]
    assert table["sex"].tolist() == ["M", "F", "O"]
    with pytest.raises(UserError, match="sex-code: 1=man: 'man' is not F, M, O or missing"):
        TableOptions(sex_codes=(("1", "man"),))


def test_links_out_of_the_tree_are_allowed_by_their_root_and_lost_ones_are_said(tmp_path):
    folder = tree(tmp_path / "super" / "tree", "participant_id\tdx\nsub-1\tCN\nsub-2\tAD\n")
    write(tmp_path / "super" / "objects" / "KEY.nii.gz", "scan")
    for name, target in (("sub-1", "../../../objects/KEY.nii.gz"), ("sub-2", "../nowhere")):
        (folder / name / "anat").mkdir(parents=True)
        (folder / one(name)).symlink_to(target)
    with pytest.raises(TableError, match=r"leaves the tree by a link, to .*KEY.nii.gz; allow"):
        made(folder)
    result = made(folder, root=tmp_path / "super")
    assert result.table["subject_id"].tolist() == ["sub-1"]
    assert result.excluded["detail"].tolist() == [f"the image is {ONLY_A_LINK}"]
    assert f"1 of 2 T1w images: {ONLY_A_LINK}: {one('sub-2')}" in result.notes


def test_one_session_in_two_folders_and_names_that_contradict_are_refused(tmp_path):
    tree(tmp_path, "participant_id\tdx\nsub-1\tCN\n", one(session="1"))
    write(tmp_path / one(session="01"))
    write(tmp_path / "sub-1" / "ses-2" / "anat" / "sub-2_ses-2_T1w.nii")
    with pytest.raises(TableError) as error:
        made(tmp_path)
    assert "'ses-01 and ses-1' sub-1 has one session in 2 spellings" in str(error.value)
    assert "its name says sub-2, its folder sub-1" in str(error.value)


def test_faults_are_named_with_what_was_found(plain):
    (plain / "participants.tsv").write_text("subject\tgroup\tage\n", encoding="utf-8")
    (plain / "participants.tsv").write_text("name\tgroup\tage\nsub-01\tPD\t61\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"participant_id or .* is missing; found name, group, age"):
        made(plain)
    (plain / "participants.tsv").write_text(
        "participant_id\tgroup\tage\tsex\nsub-01\tPD\told\tX\nsub-02\t=cmd()\t140\tM\n"
        "sub-01\tHC\t61\tM\n",
        encoding="utf-8",
    )
    with pytest.raises(TableError) as error:
        made(plain)
    found = {(p.row, p.column, p.value) for p in error.value.problems}
    assert found >= {
        (2, "age", "old"), (2, "sex", "X"), (3, "age", "140"), (3, "diagnosis", "=cmd()"),
        (4, "diagnosis", "HC"),
    }  # fmt: skip


def test_a_link_out_of_the_tree_and_an_empty_tree(plain, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside") / "x.nii.gz"
    outside.touch()
    (plain / "sub-03" / "anat").mkdir(parents=True)
    (plain / "sub-03" / "anat" / "sub-03_T1w.nii.gz").symlink_to(outside)
    with pytest.raises(TableError, match="leaves the tree by a link"):
        made(plain)
    empty = tmp_path_factory.mktemp("empty")
    with pytest.raises(UserError, match="has no T1w image"):
        made(empty)
    with pytest.raises(UserError, match="no such folder"):
        made(empty / "none")
    write(empty / "sub-1" / "anat" / "sub-1_T1w.nii.gz")
    with pytest.raises(UserError, match=r"participants.tsv: no such file; give the table"):
        made(empty)


def test_a_table_of_sessions_that_names_none_is_refused(tmp_path):
    tree(tmp_path, "participant_id\tage\tdx\nsub-1\t60\tCN\n", one(session="BL"))
    write(tmp_path / "sub-1" / "sub-1_sessions.tsv", "age\n61\n")
    with pytest.raises(UserError, match=r"sub-1_sessions.tsv: column session_id .* is missing"):
        made(tmp_path)
