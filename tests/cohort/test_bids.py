from pathlib import Path

import pytest

from mri_jax.cohort.assemble import Assembled, Selection, assemble
from mri_jax.cohort.bids import BidsOptions, is_bids, read
from mri_jax.cohort.bids_tables import TableOptions
from mri_jax.cohort.images import ImageChoice
from mri_jax.cohort.labels import LabelRules
from mri_jax.cohort.problems import TableError
from mri_jax.errors import UserError


def write(path: Path, text: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def made(folder: Path, mci: str = "baseline", people: Path | None = None, caps: bool = False,
         **options) -> Assembled:  # fmt: skip
    source = read(folder, BidsOptions(cohort="HERE", **options), people, caps)
    choice, selection = ImageChoice(level="bids"), Selection(exclude_groups=())
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
    assert is_bids(plain)
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
    write(empty / "participants.tsv", "participant_id\tdiagnosis\nsub-1\tAD\n")
    with pytest.raises(UserError, match="has no T1w image"):
        made(empty)
