import json
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mri_jax.cohort import near_duplicates
from mri_jax.cohort.duplicates import (
    COLUMNS,
    MIRRORED,
    NAME,
    check_decisions,
    dropped,
    listing,
    refuse_unresolved,
    settled,
)
from mri_jax.cohort.near_duplicates import (
    LEAST,
    SURE,
    Alike,
    alike,
    calibrate,
    compared,
    pairs_above,
)
from mri_jax.cohort.same_people import NOTHING_SAID, Apart
from mri_jax.errors import UserError
from mri_jax.problems import TableError

D = 400


def mirror(own: np.ndarray) -> np.ndarray:
    return own[..., ::-1]


def people_of(rng, number: int) -> np.ndarray:
    """Descriptions of people who share a form and differ in their own."""
    return rng.normal(0, 1, D) + rng.normal(0, 1, (number, D))


@pytest.fixture
def scans(rng):
    """Thirty people, two scanned twice, two under a second id, of whom one in a mirror."""
    own = people_of(rng, 30)
    keys = [(f"p{i}", "a") for i in range(30)] + [("p0", "b"), ("p1", "b"), ("x", "a"), ("y", "a")]
    own = np.concatenate([own, own[[0, 1, 5]], mirror(own[[7]])])
    own = own + rng.normal(0, 0.3, own.shape)
    return keys, compared(own, mirror)


def test_hidden_rescans_are_found_mirrored_ones_too(scans):
    keys, volumes = scans
    subjects = [subject for subject, _ in keys]
    found = calibrate(volumes, subjects)
    assert found.rescans == 2
    assert found.found == 1.0
    pairs = pairs_above(volumes, subjects, found.value)
    assert {(keys[i][0], keys[j][0]) for i, j, *_ in pairs} == {("p5", "x"), ("p7", "y")}
    assert {keys[j][0]: mirrored for _, j, _, mirrored in pairs} == {"x": False, "y": True}
    i, j, value, _ = pairs[0]
    both = volumes.own[i] @ volumes.own[j], volumes.own[i] @ mirror(volumes.own[j])
    assert value == pytest.approx(max(both), abs=1e-6)
    assert value > SURE


@pytest.mark.parametrize("number", [2, 3, 5, 40])
def test_a_rescan_is_found_in_a_cohort_of_any_size(rng, number):
    own = people_of(rng, number)
    own[1] = own[0] + rng.normal(0, 0.4, D)
    subjects = list("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"[:number])
    volumes = compared(own, mirror)
    found = pairs_above(volumes, subjects, calibrate(volumes, subjects).value)
    assert [(subjects[i], subjects[j]) for i, j, *_ in found] == [("a", "b")]


def test_two_scanners_in_one_cohort_are_not_two_persons_each(rng):
    scanner = rng.normal(0, 1, (2, D))
    own = people_of(rng, 40) + 0.4 * scanner[np.arange(40) % 2]
    own[4] = own[7] + 0.4 * (scanner[0] - scanner[1]) + rng.normal(0, 0.3, D)
    subjects = [f"p{i:02}" for i in range(40)]
    volumes = compared(own, mirror)
    found = pairs_above(volumes, subjects, calibrate(volumes, subjects).value)
    assert [(i, j) for i, j, *_ in found] == [(4, 7)]


@pytest.mark.parametrize("size", [1, 7, 33])
def test_pairs_are_the_same_in_blocks_of_any_size(scans, size, monkeypatch):
    keys, volumes = scans
    subjects = [subject for subject, _ in keys]
    products = volumes.correlations(slice(None))
    ranked = np.unique(products[np.triu_indices(len(products), 1)])
    # In the widest gap near the upper fifth: blocks of another size round otherwise.
    near = ranked[int(0.75 * len(ranked)) : int(0.85 * len(ranked))]
    widest = int(np.diff(near).argmax())
    limit = float(near[widest : widest + 2].mean())
    wanted = {
        (i, j)
        for i, j in np.argwhere(products >= limit).tolist()
        if i < j and subjects[i] != subjects[j]
    }
    assert len(wanted) > 50
    monkeypatch.setattr(near_duplicates, "_BLOCK", size)
    blocks: list[int] = []
    found = pairs_above(volumes, subjects, limit, lambda each: blocks.extend(each) or each)
    assert {(pair.first, pair.second) for pair in found} == wanted
    assert blocks == list(range(0, len(keys), size))


@settings(deadline=None)
@given(st.integers(2, 60), st.integers(0, 2**32 - 1))
def test_the_threshold_stays_between_its_bounds(number, seed):
    own = people_of(np.random.default_rng(seed), number)
    volumes = compared(own, mirror)
    subjects = [str(i) for i in range(number)]
    found = calibrate(volumes, subjects)
    assert LEAST <= found.value <= SURE
    assert np.isnan(found.found)
    products = volumes.correlations(slice(None))
    np.testing.assert_allclose(products, products.T, atol=1e-5)


def test_volumes_without_a_description_match_nothing(rng):
    own = people_of(rng, 25)
    own[[3, 4]] = 0
    volumes = compared(own, mirror)
    subjects = [str(i) for i in range(25)]
    assert not volumes.own[[3, 4]].any()
    assert pairs_above(volumes, subjects, calibrate(volumes, subjects).value) == []
    assert alike(volumes, subjects)._replace(threshold=0.0) == (23, 253, 0.0, [])


def test_decisions_are_kept_and_needed(scans):
    keys, volumes = scans
    subjects = [subject for subject, _ in keys]
    pairs = pairs_above(volumes, subjects, calibrate(volumes, subjects).value)
    pairs = [pair for pair in pairs if keys[pair[1]][0] == "x"]
    listed = listing(pairs, keys, pd.DataFrame(columns=COLUMNS))
    assert listed[["subject_a", "subject_b", "decision"]].values.tolist() == [["p5", "x", ""]]
    with pytest.raises(TableError, match=r"row 2: column decision: p5 a ~ x a: .*keep both"):
        check_decisions(listed, "duplicates.csv")
    decided = listed.assign(decision="keep first")
    with pytest.raises(TableError, match="a reason is needed"):
        check_decisions(decided, "duplicates.csv")
    decided = decided.assign(reason="the same man under a study and a clinic number")
    check_decisions(decided, "duplicates.csv")
    pd.testing.assert_frame_equal(listing(pairs, keys, decided), decided)
    older = decided.drop(columns=MIRRORED)
    pd.testing.assert_frame_equal(listing(pairs, keys, older), decided)
    assert list(dropped(decided)) == ["x"]
    assert list(dropped(decided.assign(decision="keep second"))) == ["p5"]
    assert set(dropped(decided.assign(decision="keep neither"))) == {"p5", "x"}
    assert dropped(decided.assign(decision="keep both")) == {}
    with pytest.raises(UserError, match="column 'reason' is missing"):
        check_decisions(decided.drop(columns="reason"), "duplicates.csv")


def test_a_search_stops_until_every_pair_is_decided(scans, tmp_path):
    keys, volumes = scans
    found = alike(volumes, [subject for subject, _ in keys])
    assert Alike.from_json(json.loads(json.dumps(found.to_json()))) == found
    table = tmp_path / "cohort.csv"
    with pytest.raises(UserError) as refused:
        settled(found, keys, table, NOTHING_SAID)
    message = str(refused.value)
    assert "2 pairs of volumes under different ids" in message
    assert re.search(r"'p5' a ~ 'x' a \(0\.\d\d\), 'p7' a ~ 'y' a \(0\.\d\d, mirrored\);", message)
    assert f"fill in decision and reason in {tmp_path / NAME}" in message
    assert "\n" not in message
    listed = pd.read_csv(tmp_path / NAME, dtype=str, keep_default_na=False)
    assert list(listed.columns) == [*COLUMNS, MIRRORED]
    assert listed[MIRRORED].tolist() == ["", "yes"]
    with pytest.raises(TableError, match=r"p7 a ~ y a: .* \(correlation 0\.\d+, mirrored\) that"):
        check_decisions(listed, NAME)
    assert listed[["subject_a", "subject_b"]].values.tolist() == [["p5", "x"], ["p7", "y"]]
    listed.iloc[:1].assign(decision="keep both", reason="twins").to_csv(
        tmp_path / NAME, index=False
    )
    with pytest.raises(UserError, match=r"1 pair of volumes under different ids.*'p7' a ~ 'y' a"):
        settled(found, keys, table, NOTHING_SAID)
    apart = Apart(frozenset([frozenset(["p7", "y"])]))
    listed.iloc[:1].assign(decision="keep both", reason="twins").to_csv(
        tmp_path / NAME, index=False
    )
    searched = settled(found, keys, table, apart)
    assert (searched.scans, searched.pairs) == (34, 34 * 33 // 2 - 2)
    assert (searched.found, searched.decided) == (2, 2)


def test_a_folder_that_cannot_be_written_is_no_way_round(scans, tmp_path):
    keys, volumes = scans
    found = alike(volumes, [subject for subject, _ in keys])
    (tmp_path / "file").write_text("", "utf-8")
    with pytest.raises(UserError, match="write them with a decision and a reason into"):
        settled(found, keys, tmp_path / "file" / "in" / "cohort.csv", NOTHING_SAID)


def test_a_study_waits_for_the_decisions(tmp_path):
    table = pd.DataFrame({"subject_id": ["p5", "x"]})
    refuse_unresolved(table, tmp_path / "cohort.csv")
    row = ["p5", "a", "x", "a", "0.9", "", ""]
    file = tmp_path / "duplicates.csv"
    pd.DataFrame([row], columns=COLUMNS).to_csv(file, index=False)
    with pytest.raises(TableError, match=r"row 2: column decision.*so alike \(correlation 0.9\)"):
        refuse_unresolved(table, tmp_path / "cohort.csv")
    # A table of the same folder that has one of both has no pair to decide about.
    refuse_unresolved(table[:1], tmp_path / "cohort.csv")
    pd.DataFrame([[*row[:5], "keep first", "one person"]], columns=COLUMNS).to_csv(
        file, index=False
    )
    with pytest.raises(UserError, match=r"leaves out 1 subject .* still has \(x\)"):
        refuse_unresolved(table, tmp_path / "cohort.csv")
    refuse_unresolved(table[:1], tmp_path / "cohort.csv")
