"""The page, the figures and the exclusions of a store."""

import json
import re

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from mri_jax.cli import main
from mri_jax.cohort import flow as flows
from mri_jax.cohort.table import write_table
from mri_jax.errors import UserError
from mri_jax.volumes import exclusions, qc_page, quality
from mri_jax.volumes.grids import GRIDS
from mri_jax.volumes.resampling import Image, pull
from mri_jax.volumes.store import StoreInfo, StoreWriter, VolumeStore

GRID = GRIDS["demo"]


@pytest.fixture
def store(tmp_path, template):
    """Ten scans, of which s03 correlates badly; one id needs escaping in HTML."""
    info = StoreInfo(GRID, "float16", False, {"template": "mni152"}, {})
    writer = StoreWriter(tmp_path / "store", info)
    mask = pull(Image(template.mask, template.affine), GRID.affine, GRID.shape) > 0.5
    head = pull(Image(template.head, template.affine), GRID.affine, GRID.shape) * mask
    rows = []
    for i in range(10):
        figures = dict.fromkeys(quality.FIGURES, 0.0)
        figures |= {"correlation": 0.9 if i != 3 else 0.2, "brain_ml": 1400.0 + i, "snr": 20.0}
        name = f"s{i:02d}" if i else "</script><b>"
        rows.append(writer.add(name, "ses-1", "A" if i < 5 else "B", head, mask, figures))
    writer.write_index(pd.DataFrame(rows))
    return tmp_path / "store"


def data_of(path):
    text = re.search(r'id="data">(.*?)</script>', path.read_text(encoding="utf-8"), re.S)[1]
    return json.loads(text)


def test_page_is_one_file_without_network_and_worst_is_named(store, capsys):
    assert main(["qc", str(store)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"{store / 'qc.html'}: 10 scans, 1 flagged"
    assert said[1] == "  s03 ses-1: correlation low"
    assert said[2] == "limits:"
    text = (store / "qc.html").read_text(encoding="utf-8")
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", text)
    data = data_of(store / "qc.html")
    assert len(data["scans"]) == 10
    worst = max(data["scans"], key=lambda scan: scan["suspicion"])
    assert worst["subject_id"] == "s03"
    assert worst["flags"] == "correlation low"
    assert "diagnosis" not in json.dumps(data)
    table = pd.read_csv(store / "quality.csv")
    assert table["subject_id"][0] == "s03"


def test_row_shows_left_on_the_left_and_front_on_top(template):
    spots = np.zeros(GRID.shape, np.float32)
    for place in ((-40.0, -18.0, 4.0), (0.0, 50.0, 4.0)):
        spots[tuple(np.round((np.array(place) - GRID.origin) / GRID.spacing).astype(int))] = 1
    picture = qc_page.row_of_slices(spots, GRID, np.zeros(GRID.shape, bool))
    width = picture.shape[1]
    # The slice at z = 4 is the last but one; each axial slice is 129 pixels and a frame wide.
    axial = picture[:, width - 2 * 133 : width - 133, 0]
    rows, columns = np.nonzero(axial > 0.5 * axial.max())
    front = columns[rows < rows.mean()].mean()
    left = columns[rows > rows.mean()].mean()
    assert left < front - 20
    assert front == pytest.approx(66, abs=3)


def test_decisions_and_thresholds_exclude_and_are_counted(store, tmp_path, capsys):
    (tmp_path / "decisions.csv").write_text(
        "subject_id,session_id,decision,reason,rater,date\n"
        's05,ses-1,exclude,"motion, strong",AB,2026-11-02\ns03,ses-1,keep,,AB,2026-11-02\n',
        encoding="utf-8",
    )
    arguments = ["qc", str(store), "--decisions", str(tmp_path / "decisions.csv")]
    assert (
        main([*arguments, "--threshold", "brain_ml>1408.5", "--threshold", "correlation<0.5"]) == 0
    )
    excluded = pd.read_csv(store / "exclusions.csv").set_index("subject_id")
    assert excluded.index.tolist() == ["s05", "s09"]
    assert excluded.loc["s05", "reason"] == "decision: motion, strong"
    assert excluded.loc["s05", "rater"] == "AB"
    assert "brain_ml>1408.5" in excluded.loc["s09", "reason"]
    assert data_of(store / "qc.html")["decisions"]["s05\0ses-1"]["decision"] == "exclude"
    assert "excluded: 2 scans" in capsys.readouterr().out
    # They stand, and a later command with neither decisions nor thresholds says and applies them.
    cohort = VolumeStore(store).index[["subject_id", "session_id", "cohort"]]
    cohort = cohort.reset_index(drop=True).assign(diagnosis="CN", age=70.0, sex="F", image="")
    write_table(tmp_path / "cohort.csv", cohort)
    arguments = ["--cohort", str(tmp_path / "cohort.csv"), "--cohort-out", str(tmp_path / "q.csv")]
    assert main(["qc", str(store), *arguments]) == 0
    assert "excluded before, which stands: 2 scans (exclusions.csv)" in capsys.readouterr().out
    left = set(pd.read_csv(tmp_path / "q.csv")["subject_id"])
    assert set(cohort["subject_id"]) - left == {"s05", "s09"}
    assert len(pd.read_csv(store / "exclusions.csv")) == 2


def test_exclusions_go_into_the_cohort_s_flow(store, tmp_path, capsys):
    names = [*VolumeStore(store).index["subject_id"], "lost"]
    cohort = pd.DataFrame(
        {
            "subject_id": names,
            "session_id": "ses-1",
            "cohort": ["A" if name < "s05" else "B" for name in names],
            "diagnosis": ["AD" if i % 2 else "CN" for i in range(11)],
            "age": 70.0,
            "sex": "F",
            "image": "",
        }
    )
    write_table(tmp_path / "cohort.csv", cohort)
    nobody = pd.DataFrame(columns=["cohort", "reason", "group"])
    flows.write(tmp_path / "flow.csv", flows.start(cohort, nobody))
    arguments = ["qc", str(store), "--threshold", "correlation<0.5"]
    out = tmp_path / "after.csv"
    arguments += ["--cohort", str(tmp_path / "cohort.csv"), "--cohort-out", str(out)]
    assert main(arguments) == 0
    assert set(names) - set(pd.read_csv(out)["subject_id"]) == {"s03", "lost"}
    flow = flows.read(tmp_path / "after_flow.csv")
    lost = flow[(flow["step"] == "excluded") & (flow["n"] > 0)]
    assert lost[["stage", "cohort", "n"]].values.tolist() == [
        ["preprocessing", "A", 1],
        ["quality control", "A", 1],
    ]


@pytest.mark.parametrize("rule", ["correlation", "colour<1", "snr<<3", "snr<a"])
def test_refuses_a_wrong_threshold(store, rule):
    assert main(["qc", str(store), "--threshold", rule]) == 2


@pytest.mark.parametrize(
    ("row", "rule"),
    [
        ("s01,ses-1,maybe", "neither keep nor exclude"),
        ("s99,ses-1,keep", "not in the store"),
        ("s01,ses-1,keep\ns01,ses-1,exclude", "decided twice"),
    ],
)
def test_refuses_wrong_decisions(store, row, rule):
    frame = pd.DataFrame(
        [r.split(",") for r in row.split("\n")], columns=["subject_id", "session_id", "decision"]
    )
    with pytest.raises(UserError, match=rule):
        exclusions.decided(VolumeStore(store).index, frame, [])


def test_all_wrong_decisions_are_told_at_once(store):
    rows = [("s01", "ses-1", "maybe"), ("s02", "ses-1", "keep"), ("s99", "ses-1", "keep")]
    frame = pd.DataFrame(rows, columns=["subject_id", "session_id", "decision"])
    index = VolumeStore(store).index
    with pytest.raises(UserError) as error:
        exclusions.decided(index, frame, [])
    assert str(error.value).splitlines() == [
        "decisions: row 2: column decision: 'maybe' is neither keep nor exclude (s01/ses-1)",
        "decisions: row 4: 's99/ses-1' is not in the store",
    ]
    with pytest.raises(UserError, match="columns 'session_id', 'decision' are missing; found subj"):
        exclusions.decided(index, frame[["subject_id"]], [])


def test_export_opens_aligned_to_the_template(store, template, tmp_path):
    out = tmp_path / "out.nii.gz"
    assert main(["export", str(store), "s04", str(out)]) == 0
    image = nib.load(out)
    assert nib.aff2axcodes(image.affine) == ("R", "A", "S")
    there = pull(Image(template.head, template.affine), image.affine, image.shape)
    data = image.get_fdata()
    assert np.corrcoef(data[data > 0], there[data > 0])[0, 1] > 0.999
    assert (image.header["qform_code"], image.header["sform_code"]) == (4, 4)
    first = out.read_bytes()
    main(["export", str(store), "s04", str(out)])
    assert out.read_bytes() == first
    assert main(["export", str(store), "nobody", str(out)]) == 2
    assert main(["export", str(store), "s04", str(tmp_path / "a.mgz")]) == 2
    assert main(["export", str(store), "s04", str(tmp_path / "m.nii"), "--mask"]) == 0
    assert nib.load(tmp_path / "m.nii").get_fdata().sum() == (data > 0).sum()


def test_scale_and_shear_of_a_known_affine():
    turn = np.array([[0.6, -0.8, 0], [0.8, 0.6, 0], [0, 0, 1]])
    matrix = np.eye(4)
    matrix[:3, :3] = 0.9 * turn @ np.diag([1.1, 1.0, 1 / 1.1])
    scale, shear = quality.scale_and_shear(matrix)
    assert scale == pytest.approx(0.9)
    assert shear == pytest.approx(0.1)


def test_noise_is_found_beneath_anatomy(rng):
    x, y, z = np.meshgrid(*(np.arange(n) for n in (40, 44, 38)), indexing="ij")
    clean = 500.0 + 3 * x - 2 * y + z
    mask = np.zeros(clean.shape, bool)
    mask[5:35, 5:39, 5:33] = True
    noisy = clean + rng.normal(0, 25, clean.shape)
    expected = np.median(clean[mask]) / 25
    assert quality.signal_to_noise(noisy, mask) == pytest.approx(expected, rel=0.05)
