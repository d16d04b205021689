import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mri_jax.cohort.leakage import LeakageError, Seen, check_disjoint

ids = st.frozensets(st.integers(0, 12).map("sub-{}".format))
shas = st.dictionaries(st.integers(0, 12).map("{:064x}".format), st.just("sub-9 ses-1"))
seen = st.builds(Seen, ids, shas)


@given(seen, seen)
def test_any_overlap_is_refused_and_nothing_else(one, other):
    overlap = bool(one.subjects & other.subjects) or bool(set(one.scans) & set(other.scans))
    if overlap:
        with pytest.raises(LeakageError):
            check_disjoint(one, other, "a test")
    else:
        check_disjoint(one, other, "a test")


@given(seen, seen, seen)
def test_a_descendant_has_seen_what_its_ancestors_have(source, tuned, tested):
    both = source | tuned
    assert both.subjects == source.subjects | tuned.subjects
    assert set(both.scans) == set(source.scans) | set(tuned.scans)
    assert Seen.from_json(json.loads(json.dumps(both.to_json()))) == both


def test_a_person_is_recognised_in_every_spelling():
    tested = Seen(frozenset(["sub-ADNI002S0295"]))
    with pytest.raises(LeakageError, match="sub-ADNI002S0295"):
        check_disjoint(Seen(frozenset(["002_S_0295"])), tested, "ADNI2")
    check_disjoint(Seen(frozenset(["sub-AIBL295"])), tested, "ADNI and AIBL count apart")


def test_the_offenders_are_named():
    source = Seen.of([(f"sub-{n}", "ses-1", f"a{n}") for n in range(8)])
    with pytest.raises(LeakageError, match=r"cnn5 on ADNI2: 2 subjects \(sub-3, sub-7\) on both"):
        check_disjoint(source, Seen.of([("sub-7", "x", ""), ("sub-3", "x", "")]), "cnn5 on ADNI2")
    with pytest.raises(LeakageError, match=r"1 scan \(other ses-2 = sub-5 ses-1\) with the same"):
        check_disjoint(source, Seen.of([("other", "ses-2", "a5")]), "cnn5 on ADNI2")
    with pytest.raises(LeakageError, match=r"8 subjects .* and 3 more"):
        check_disjoint(source, source, "itself")
