import pandas as pd
import pytest

from mri_jax.errors import UserError
from mri_jax.evaluation.families import Method, declare
from mri_jax.evaluation.predictions import validate
from mri_jax.evaluation.variants import CNN, UNKNOWN, Variant, completed, described, of_rows
from tests.evaluation.test_predictions import table

WIDE = Variant(CNN, "", 5, 4.0)


def frame(*runs, stage="source"):
    return pd.DataFrame({"run": runs, "stage": stage})


def test_columns_come_back_as_they_were_also_from_a_file(tmp_path):
    variants = {
        v.name: v
        for v in (
            WIDE,
            Variant("baseline-voxels", "A"),
            Variant(CNN, "A", 7, 1.5),
            Variant(CNN, "", 5, 1.0, "map-1-5"),
            Variant(CNN, "", 5, 1.0, "", "group", "residual"),
        )
    }
    told = described(frame(*variants, "mine"), variants)
    assert of_rows(told) == variants | {"mine": UNKNOWN}
    told.to_csv(tmp_path / "x.csv", index=False)
    assert of_rows(pd.read_csv(tmp_path / "x.csv")) == variants | {"mine": UNKNOWN}


def test_what_columns_say_goes_before_what_is_known_by_name():
    named_alike = described(frame("cnn5-w4"), {"cnn5-w4": Variant(CNN, "", 9, 4.0)})
    assert of_rows(completed(named_alike, [WIDE]))["cnn5-w4"].depth == 9
    assert of_rows(completed(frame("cnn5-w4"), [WIDE])) == {"cnn5-w4": WIDE}


def test_a_table_that_contradicts_itself_is_refused():
    told = described(table(), {"cnn5-w1": Variant(CNN, "", 5, 1.0)})
    assert validate(told, "x.csv")["depth"].tolist() == [5] * 4
    for column, value, rule in (("depth", 7, "described alike"), ("depth", 2.5, "1 or more"),
                                ("width", 0.0, "above 0"), ("width", "x", "above 0"),
                                ("family", "transformer", "of this version"),
                                ("attention", "se 3", "with blocks as se-3-4-5"),
                                ("depth", [5], "text or a number")):  # fmt: skip
        wrong = told.assign(**{column: told[column].astype(object)})
        wrong.at[2, column] = value
        with pytest.raises(UserError, match=rf"row 4: .*{rule}"):
            validate(wrong, "x.csv")


def test_networks_that_differ_in_an_option_stand_in_a_table_of_its_own():
    runs = {
        "deep": Variant(CNN, "", 7, 1.0),
        "plain": Variant(CNN, "", 5, 1.0),
        "gated": Variant(CNN, "", 5, 1.0, "se"),
        "gated early": Variant(CNN, "", 5, 1.0, "se-1"),
        "deep and gated": Variant(CNN, "", 7, 1.0, "se"),
        "alone": Variant(CNN, "", 5, 2.0, "map"),
        "also alone": Variant(CNN, "", 5, 2.0, "spatial"),
        "instance": Variant(CNN, "", 5, 1.0, "", "instance"),
        "gated group": Variant(CNN, "", 5, 1.0, "se", "group"),
        "residual": Variant(CNN, "", 5, 1.0, "se", "", "residual"),
    }
    found = {f.key: f for f in declare(described(frame(*runs), runs))}
    rows = {key: [m.run for m in family.methods] for key, family in found.items()}
    assert rows == {
        "depth": ["plain", "deep"],
        "depth-se": ["gated", "deep and gated"],
        "attention": ["plain", "gated", "gated early"],
        "attention-cnn7-w1": ["deep", "deep and gated"],
        "norm": ["plain", "instance"],
        "norm-se": ["gated", "gated group"],
        "residual-se": ["gated", "residual"],
        "source": ["alone", "also alone"],
    }
    assert found["attention"].pairs == (
        (Method("gated"), Method("plain")),
        (Method("gated early"), Method("plain")),
    )


def test_tables_follow_the_columns_and_not_the_names():
    runs = {
        "thin": Variant(CNN, "", 5, 1.0),
        "a deep one": Variant(CNN, "", 12, 1.0),
        "cnn7-w1": Variant(CNN, "a task", 5, 1.0),
        "plain": Variant("baseline-voxels", ""),
    }
    told = described(frame(*runs), runs)
    depth, task = declare(told)
    assert depth.key == "depth"
    assert [m.run for m in depth.methods] == ["thin", "a deep one", "plain"]
    assert (Method("a deep one"), Method("thin")) in depth.pairs
    assert depth.baselines == {"plain"}
    assert task.key == "task-w1"
    assert [m.run for m in task.methods] == ["cnn7-w1", "plain"]
    (unknown,) = declare(frame(*runs))
    assert unknown.key == "source"
