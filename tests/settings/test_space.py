"""Spaces of searches: what a line may say, and what a point of a space sets."""

import math

import pytest

from configs.search import get_config
from mri_jax.errors import UserError
from mri_jax.settings.fields import leaves
from mri_jax.settings.sections import Model
from mri_jax.settings.space import grid_of, lines_of, overrides
from mri_jax.settings.study import Study

RULES = {name: rule for name, rule, _ in leaves(Study, "")}
RATE = {"field": "train.learning_rate", "type": "float", "low": 1e-4, "high": 1e-2, "log": True}
GATE = {"field": "model.attention", "type": "choice", "options": ("none", "se")}
WHERE = {
    "field": "model.attention_blocks",
    "type": "choice",
    "options": ((4,), (4, 5)),
    "when": {"model.attention": ("se",)},
}


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ({"field": "model.widht", "type": "float", "low": 1, "high": 2}, "did you mean config.mod"),
        ({**RATE, "low": 1e-2, "high": 1e-4}, "low, 0.01, must be below high, 0.0001"),
        ({**RATE, "low": 1e-3, "high": 2.0}, "high: 2.0: config.train.learning_rate must be"),
        ({**RATE, "low": 0.0}, "low: 0.0 must be above 0 where log is True"),
        ({**RATE, "lower": 0.0}, "space[0].lower: no such part of a line"),
        ({**RATE, "options": (1,)}, "space[0].options: a line of type 'float' has none"),
        ({"field": "train.batch", "type": "float", "low": 1, "high": 4}, "train.batch must"),
        ({"field": "train.batch", "type": "int", "low": 1.5, "high": 4}, "must be a whole number"),
        ({"field": "train.batch", "type": "real"}, "'real' must be one of 'float'"),
        ({"field": "train.batch", "type": "int", "low": 1}, "high: is missing"),
        ({**RATE, "low": "1e-4"}, "low: '1e-4' must be a number"),
        ({"field": "train.batch", "type": "int", "low": 2, "high": 2}, "must be below high"),
        ({"field": "train.learning_rate", "type": "int", "low": 0, "high": 1}, "must be 'float'"),
        ({"field": "model.dropout", "type": "int", "low": 0, "high": 1}, "must be 'float'"),
        (
            {"field": "train.batch", "type": "int", "low": 1, "high": 8, "log": True, "step": 2},
            "step: 2 must be left out where log is True",
        ),
        ({**GATE, "options": ("none", "so")}, "options: 'so': config.model.attention must be"),
        ({**GATE, "options": ("se", "se")}, "has a value twice"),
        ({**GATE, "options": ()}, "must be a tuple of at least one value"),
        ({"field": "train.folds", "type": "int", "low": 2, "high": 4}, "folds is not searched"),
        ({"field": "task.positive", "type": "choice", "options": ("AD",)}, "not searched"),
        (WHERE, "model.attention is the field of no line before this one"),
    ],
)  # fmt: skip
def test_a_line_that_cannot_be_meant_is_refused(line, told):
    with pytest.raises(UserError) as refused:
        lines_of((line,), RULES)
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)


def test_what_lines_say_together_is_checked():
    with pytest.raises(UserError, match=r"space\[1\].field: train.learning_rate stands .* twice"):
        lines_of((RATE, RATE), RULES)
    with pytest.raises(UserError, match="never is 'map'"):
        lines_of((GATE, {**WHERE, "when": {"model.attention": ("map",)}}), RULES)
    preset = {"field": "model.preset", "type": "choice", "options": ("cnn5", "cnn7")}
    blocks = {"field": "model.blocks", "type": "int", "low": 3, "high": 5}
    with pytest.raises(UserError, match="both say how many layers"):
        lines_of((preset, blocks), RULES)


def test_a_grid_has_every_point_once_and_conditional_fields_where_they_are_drawn():
    lines = lines_of((GATE, WHERE, {**RATE, "points": 3}), RULES)
    points = list(grid_of(lines))
    assert len(points) == 3 + 2 * 3
    assert [p["train.learning_rate"] for p in points[:3]] == pytest.approx([1e-4, 1e-3, 1e-2])
    with_blocks = [p for p in points if "model.attention_blocks" in p]
    assert {p["model.attention"] for p in with_blocks} == {"se"}
    assert len({tuple(sorted(p.items())) for p in points}) == 9


@pytest.mark.parametrize(
    ("values", "changed"),
    [
        ({"model.blocks": 3}, {"preset": "", "repetitions": (1, 1, 1), "filters": (8, 16, 32)}),
        (
            {"model.blocks": 6, "model.repetitions": (1, 2)},
            {"repetitions": (1, 2, 2, 2, 2, 2), "filters": (8, 16, 32, 64, 128, 128)},
        ),
        ({"model.fc": (32,)}, {"fc": (32,), "dropout": (0.5, 0.0)}),
        ({"model.fc": (), "model.dropout": 0.25}, {"fc": (), "dropout": (0.25,)}),
        ({"model.dropout": 0.25}, {"dropout": (0.25, 0.25, 0.0)}),
        ({"model.dropout": (0.1, 0.2, 0.3)}, {"dropout": (0.1, 0.2, 0.3)}),
    ],
)
def test_sizes_that_belong_together_follow_each_other(values, changed):
    made = overrides(values, Model())["model"]
    assert {name: made[name] for name in changed} == changed
    base = {"preset": "cnn5", "repetitions": ()}
    spec = Model(**{**base, **made}).spec
    assert len(spec.dropout) == len(spec.fc) + 1
    assert len(spec.filters) == len(spec.repetitions)


def test_a_trial_is_the_study_with_the_values_of_a_point():
    study = Study.parse(get_config("smoke").to_dict())
    run = study.trial({"model.blocks": 3, "train.learning_rate": 1e-3, "augment.shift": 2})
    assert run.spec.repetitions == (1, 1, 1)
    assert (run.train.learning_rate, run.augment.shift) == (1e-3, 2)
    assert run.train.batch == study.train.batch
    assert study.trial({}).spec == study.model.spec


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"trials": 3, "space": ()}, "config.search.space: is empty"),
        ({"objectives": ("auc", "ADNI2")}, "'ADNI2' names ADNI2, a target"),
        ({"objectives": ("auc of AIBL",)}, "names AIBL, a target"),
        ({"objectives": ("bac",)}, "config.search.objectives: 'bac' must be one of"),
        ({"objectives": ("parameters", "auc"), "pruner": "none"}, "the first, 'parameters', must"),
        ({"objectives": ("auc", "parameters")}, "config.search.pruner: 'median' must be 'none'"),
        ({"sampler": "grid"}, "space[8].points: is missing"),
    ],
)
def test_a_search_that_contradicts_itself_is_refused(fields, told):
    values = get_config("smoke").to_dict()
    values["search"] |= fields
    with pytest.raises(UserError) as refused:
        Study.parse(values)
    assert told in str(refused.value)


def test_a_grid_of_numbers_ends_at_its_bounds():
    (line,) = lines_of(({**RATE, "log": False, "points": 4},), RULES)
    assert line.grid[0] == 1e-4
    assert math.isclose(line.grid[-1], 1e-2)
    assert math.isclose(line.grid[1], 1e-4 + (1e-2 - 1e-4) / 3)
