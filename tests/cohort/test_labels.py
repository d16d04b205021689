import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mri_jax.cohort.labels import Decision, LabelRules, Visit, decide
from mri_jax.errors import UserError

MONTHS = (3, 6, 12, 18, 24, 30, 35, 36, 37, 42, 48, 60)
diagnosis = st.sampled_from(["CN", "MCI", "AD", ""])
histories = st.builds(
    lambda first, later: [
        Visit("bl", 0.0, first, True),
        *(Visit(f"m{m:02d}", float(m), dx) for m, dx in later.items()),
    ],
    diagnosis,
    st.dictionaries(st.sampled_from(MONTHS), diagnosis, max_size=8),
)
RULES = LabelRules()


def history(text: str) -> list[Visit]:
    visits = [part.split("=") for part in text.split()]
    return [
        Visit(code, 0.0 if code == "bl" else float(code[1:]), dx.replace("-", ""), code == "bl")
        for code, dx in visits
    ]


def expected(visits: list[Visit]) -> str:
    """The definition, written as the sentence reads rather than as the code runs."""
    first = next(v.diagnosis for v in visits if v.baseline)
    if first != "MCI":
        return first
    if any(v.diagnosis == "AD" and v.month <= 36 for v in visits):
        return "pMCI"
    ill = min((v.month for v in visits if v.diagnosis == "AD"), default=float("inf"))
    followed = any(v.diagnosis in ("CN", "MCI") and 36 <= v.month < ill for v in visits)
    return "sMCI" if followed else ""


@settings(max_examples=300, deadline=None)
@given(histories, st.randoms(use_true_random=False))
def test_labels_follow_the_definition_whatever_the_order_of_visits(visits, random):
    shuffled = list(visits)
    random.shuffle(shuffled)
    decision = decide(shuffled, RULES)
    assert decision.label == expected(visits)
    assert decision == decide(visits, RULES)
    assert bool(decision.label) != bool(decision.reason)


@settings(max_examples=300, deadline=None)
@given(histories, diagnosis, st.sampled_from(MONTHS))
def test_a_later_visit_changes_no_decision_that_was_made_before_it(visits, dx, month):
    decision = decide(visits, RULES)
    if not decision.label:
        return
    known = {v.code: v.month for v in visits}
    decided_at = max(known[text.split("=")[0]] for text in decision.deciding)
    later = Visit("new", float(month) + 0.5, dx)
    if later.month > max(decided_at, *known.values()):
        assert decide([*visits, later], RULES) == decision


@settings(max_examples=300, deadline=None)
@given(
    histories,
    st.sampled_from(["keep", "exclude"]),
    st.sampled_from(["keep", "exclude"]),
    st.sampled_from([0.0, 3.0]),
)
def test_options_only_take_labels_away_and_never_look_past_the_horizon(
    visits, reversion, unstable, window
):
    strict = LabelRules(reversion=reversion, unstable=unstable, window=window)
    loose = LabelRules(window=window)
    decision = decide(visits, strict)
    assert decision.label in ("", decide(visits, loose).label)
    if decision.label in ("AD", "CN", "pMCI"):
        seen = [v for v in visits if v.month <= 36 + window]
        assert decide(seen, strict) == decision


@pytest.mark.parametrize(
    ("text", "rules", "label", "reason", "deciding"),
    [
        ("bl=MCI m36=AD", RULES, "pMCI", "", "bl=MCI m36=AD"),
        ("bl=MCI m37=AD", RULES, "", "follow-up too short", "bl=MCI m37=AD"),
        ("bl=MCI m37=AD", LabelRules(window=1), "pMCI", "", "bl=MCI m37=AD"),
        ("bl=MCI m35=MCI", RULES, "", "follow-up too short", "bl=MCI m35=MCI"),
        ("bl=MCI m35=MCI", LabelRules(window=1), "sMCI", "", "bl=MCI m35=MCI"),
        ("bl=MCI m24=MCI", LabelRules(horizon=24), "sMCI", "", "bl=MCI m24=MCI"),
        ("bl=MCI m36=MCI m48=AD", RULES, "sMCI", "", "bl=MCI m36=MCI"),
        ("bl=MCI m12=CN m36=MCI", LabelRules(reversion="exclude"), "", "unstable diagnosis",
         "bl=MCI m12=CN"),
        ("bl=MCI m36=MCI m48=CN", LabelRules(reversion="exclude"), "sMCI", "", "bl=MCI m36=MCI"),
        ("bl=MCI m12=AD m24=MCI", LabelRules(unstable="exclude"), "", "unstable diagnosis",
         "bl=MCI m12=AD m24=MCI"),
        ("bl=AD m12=MCI", RULES, "AD", "", "bl=AD"),
        ("bl=AD m12=MCI", LabelRules(unstable="exclude"), "", "unstable diagnosis",
         "bl=AD m12=MCI"),
        ("bl=CN m48=MCI", LabelRules(unstable="exclude"), "CN", "", "bl=CN"),
        ("bl=MCI", LabelRules(mci="baseline"), "MCI", "", "bl=MCI"),
        ("bl=PD m12=CN", LabelRules(unstable="exclude"), "PD", "", "bl=PD"),
        ("bl=- m12=AD", RULES, "", "no diagnosis", ""),
        ("m12=AD", RULES, "", "no baseline", ""),
    ],
)  # fmt: skip
def test_decisions_of_the_documented_table(text, rules, label, reason, deciding):
    decision = decide(history(text), rules)
    assert (decision.label, decision.reason) == (label, reason)
    assert " ".join(decision.deciding) == deciding


def test_the_graver_of_two_diagnoses_of_one_day_counts():
    both = [Visit("bl", 0, "MCI", True), Visit("a", 12, "MCI"), Visit("b", 12, "AD")]
    assert decide(both, RULES) == Decision("pMCI", deciding=("bl=MCI", "b=AD"))


def test_a_rule_set_says_its_name_version_and_what_differs():
    assert str(RULES) == "baseline-and-progression/1"
    text = str(LabelRules(horizon=24.0, clock="date"))
    assert text == "baseline-and-progression/1 horizon=24 clock=date"
    first = "the diagnosis at the first session"
    assert LabelRules(mci="baseline").in_words == first
    assert RULES.in_words == f"{first}, MCI by whether it becomes AD within 36 months"
    told = f"{first}, MCI by whether it becomes AD within 24 months (clock=date)"
    assert LabelRules(horizon=24.0, clock="date").in_words == told


@pytest.mark.parametrize(
    "wrong", [{"mci": "both"}, {"window": 36.0}, {"horizon": float("nan")}, {"clock": "day"}]
)
def test_an_impossible_rule_is_refused(wrong):
    with pytest.raises(UserError, match="rules"):
        LabelRules(**wrong)
