import numpy as np
import pandas as pd
import pytest

from mri_jax.cohort.near_duplicates import (
    COLUMNS,
    UNCALIBRATED,
    calibrate,
    check_decisions,
    correlations,
    dropped,
    listing,
    pairs_above,
    reduce_volume,
    refuse_unresolved,
)
from mri_jax.cohort.problems import TableError
from mri_jax.errors import UserError

SHAPE = (24, 28, 20)


@pytest.fixture
def scans(rng):
    """Twelve people on a common anatomy; two scanned twice, one under two ids in another cohort."""
    common = rng.normal(0, 3, SHAPE)
    people = [common + rng.normal(0, 1, SHAPE) for _ in range(12)]
    mask = np.zeros(SHAPE, bool)
    mask[2:-2, 3:-1, 1:-3] = True
    keys = [(f"p{i}", "a") for i in range(12)] + [("p0", "b"), ("p1", "b"), ("x", "a")]
    volumes = [*people, *(people[i] * 40 + 900 for i in (0, 1, 5))]
    volumes = [v + rng.normal(0, 0.3 * v[mask].std(), SHAPE) for v in volumes]
    reduced = np.stack([reduce_volume(v, mask, cells=7) for v in volumes])
    return keys, reduced, ["A"] * 14 + ["B"]


def test_block_means_of_z_scores(rng):
    volume, mask = rng.normal(5, 2, (8, 12, 10)), np.ones((8, 12, 10), bool)
    reduced = reduce_volume(volume, mask, cells=3).reshape(2, 3, 2)
    z = (volume - volume.mean()) / volume.std()
    np.testing.assert_allclose(reduced[1, 2, 0], z[4:8, 8:12, 0:4].mean(), rtol=1e-5)
    assert np.isfinite(reduce_volume(np.ones((4, 4, 4)), np.ones((4, 4, 4), bool))).all()


def test_the_threshold_comes_from_known_rescans_and_finds_the_hidden_one(scans):
    keys, reduced, cohorts = scans
    vectors = correlations(reduced, cohorts)
    subjects = [subject for subject, _ in keys]
    found = calibrate(vectors, subjects)
    assert found.rescans == 2
    assert found.others == 1
    ((i, j, value),) = pairs_above(vectors, subjects, found.value)
    assert {keys[i], keys[j]} == {("p5", "a"), ("x", "a")}
    assert value == pytest.approx(float(vectors[i] @ vectors[j]), abs=1e-6)
    assert calibrate(vectors[:12], subjects[:12]).value == UNCALIBRATED
    assert pairs_above(vectors[:12], subjects[:12], UNCALIBRATED) == []


def test_decisions_are_kept_and_needed(scans):
    keys, reduced, cohorts = scans
    vectors = correlations(reduced, cohorts)
    subjects = [subject for subject, _ in keys]
    pairs = pairs_above(vectors, subjects, calibrate(vectors, subjects).value)
    listed = listing(pairs, keys, pd.DataFrame(columns=COLUMNS))
    assert listed[["subject_a", "subject_b", "decision"]].values.tolist() == [["p5", "x", ""]]
    with pytest.raises(TableError, match=r"row 2: column decision: p5 a ~ x a .* must be one of"):
        check_decisions(listed, "duplicates.csv")
    decided = listed.assign(decision="keep first")
    with pytest.raises(TableError, match="a reason is needed"):
        check_decisions(decided, "duplicates.csv")
    decided = decided.assign(reason="the same man under a study and a clinic number")
    check_decisions(decided, "duplicates.csv")
    pd.testing.assert_frame_equal(listing(pairs, keys, decided), decided)
    assert list(dropped(decided)) == ["x"]
    assert list(dropped(decided.assign(decision="keep second"))) == ["p5"]
    assert set(dropped(decided.assign(decision="keep neither"))) == {"p5", "x"}
    assert dropped(decided.assign(decision="keep both")) == {}
    with pytest.raises(UserError, match="column 'reason' is missing"):
        check_decisions(decided.drop(columns="reason"), "duplicates.csv")


def test_a_study_waits_for_the_decisions(tmp_path):
    table = pd.DataFrame({"subject_id": ["p5", "x"]})
    refuse_unresolved(table, tmp_path / "cohort.csv")
    row = ["p5", "a", "x", "a", "0.9", "", ""]
    file = tmp_path / "duplicates.csv"
    pd.DataFrame([row], columns=COLUMNS).to_csv(file, index=False)
    with pytest.raises(TableError, match="row 2: column decision"):
        refuse_unresolved(table, tmp_path / "cohort.csv")
    pd.DataFrame([[*row[:5], "keep first", "one person"]], columns=COLUMNS).to_csv(
        file, index=False
    )
    with pytest.raises(UserError, match=r"leaves out 1 subjects .* still has \(x\)"):
        refuse_unresolved(table, tmp_path / "cohort.csv")
    refuse_unresolved(table[:1], tmp_path / "cohort.csv")
