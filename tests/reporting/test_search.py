"""What a report says of a search: from tables as a search leaves them."""

import numpy as np
import pandas as pd
import pytest
from etils import epath

from mri_jax import files, sealed
from mri_jax.evaluation.predictions import probability_of
from mri_jax.evaluation.variants import Variant, described
from mri_jax.reporting import search_words
from mri_jax.reporting.search import _of_run
from mri_jax.reporting.search_figures import search_figures
from mri_jax.reporting.search_tables import search_tables
from mri_jax.runs import search as results
from mri_jax.runs.results import Results
from mri_jax.runs.search import PREFIX
from tests.search.made import study_of

RUNS = {
    "searched-cnn2-se-w1": Variant("cnn", "", 2, 1.0, "se", chosen="searched"),
    "random-cnn2-w0.5": Variant("cnn", "", 2, 0.5, chosen="random"),
    "cnn2-w1": Variant("cnn", "", 2, 1.0),
}


def aside(shifts: tuple[float, float, float], people: int = 40) -> pd.DataFrame:
    """Predictions of two networks of each run; patients score higher by its shift."""
    label = np.arange(people) % 2
    parts = []
    for place, (run, shift) in enumerate(zip(RUNS, shifts, strict=True)):
        for fold in range(2):
            rng = np.random.default_rng([place, fold])
            logits = np.stack([0 * label, shift * label + rng.normal(size=people)], axis=1)
            parts.append(
                pd.DataFrame(
                    {
                        "run": run, "stage": "source", "repeat": 0, "fold": fold,
                        "cohort": "ADNI1", "split": "test",
                        "subject_id": [f"s{i:03d}" for i in range(people)], "session_id": "bl",
                        "label": label, "logit_0": logits[:, 0], "logit_1": logits[:, 1],
                        "probability": probability_of(logits),
                    }
                )
            )  # fmt: skip
    return described(pd.concat(parts, ignore_index=True), RUNS)


def trials(matters: bool) -> pd.DataFrame:
    """Twelve trials of each search, one of them pruned; the AUC follows the width, or nothing."""
    rows = []
    for kind in ("tpe", results.BESIDE):
        rng = np.random.default_rng(len(kind))
        for number in range(1, 13):
            width, pruned = float(rng.choice([0.5, 1.0])), number == 5
            signal = 0.2 * (width == 1.0) if matters else 0.0
            gate = str(rng.choice(["none", "se"]))
            rows.append(
                {
                    "search": kind, "trial": number, "state": "pruned" if pruned else "complete",
                    "reason": "halves volumes" if pruned else "",
                    f"{PREFIX}model.width": width,
                    f"{PREFIX}train.learning_rate": 10 ** rng.uniform(-4, -2),
                    f"{PREFIX}model.attention": gate,
                    f"{PREFIX}model.attention_blocks": "1, 2" if gate == "se" else "",
                    "auc": np.nan if pruned else 0.6 + signal + 0.02 * rng.normal(),
                    "parameters": 1000 * width, "multiply_adds": 5e6 * width, "mebibytes": 3,
                    "minutes": 0.5, "epochs": 8,
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


def made(folder, shifts=(2.0, 2.0, 2.0), matters=True, search=None, people=40):
    place = epath.Path(folder) / results.FOLDER
    files.write_csv(place / results.TRIALS, trials(matters))
    files.write_csv(place / results.ASIDE, aside(shifts, people))
    values = {"model.filters": [4, 8], "train.learning_rate": 0.00123456}
    winner = {"search": "tpe", "trial": 7, "values": values}
    sealed.write(place / results.CHOSEN, {"chosen": {"searched": winner}}, ())
    study = study_of(folder, subjects=2, search={"trials": 12, **(search or {})})
    empty = pd.DataFrame()
    run = Results(
        path=epath.Path(folder), study=study, provenance=None, plan=empty, cohort=empty,
        flow=empty, predictions=empty, metrics=empty, history=empty, missing=(),
    )  # fmt: skip
    found = _of_run(run, 0)
    assert found is not None
    return found


def test_on_noise_nothing_was_found(tmp_path):
    found = made(tmp_path, (0.0, 0.0, 0.0), matters=False)
    told = list(search_words.claims(found))
    assert told[0].text.startswith(
        "Nothing was found: on 20 AD, 20 CN set aside before the first trial the winner's AUC is"
    )
    assert "not clearly above chance" in told[0].text
    assert told[-1].text == "The trials do not show that the AUC depends on any single field."


def test_a_winner_like_the_others_is_above_chance_and_nothing_better_was_found(tmp_path):
    told = next(search_words.claims(made(tmp_path))).text
    assert "above chance; nothing was found that is clearly better" in told


def test_a_winner_that_beats_the_others_says_whom(tmp_path):
    told = next(search_words.claims(made(tmp_path, (3.0, 2.9, 0.0)))).text
    assert told.endswith("clearly better than CNN-2 as configured.")


def test_a_perfect_separation_is_above_chance_unless_there_are_few_to_separate(tmp_path):
    told = next(search_words.claims(made(tmp_path / "many", (99.0, 0.0, 0.0)))).text
    assert "AUC is 100.0% (no interval: perfect separation), clearly better than" in told
    few = made(tmp_path / "few", (99.0, 0.0, 0.0), people=4)
    assert next(search_words.claims(few)).text.startswith("Nothing was found: on 2 AD, 2 CN")


def test_trials_and_fields_are_told_with_their_numbers(tmp_path):
    claims = {claim.about: claim.text for claim in search_words.claims(made(tmp_path))}
    assert "TPE: 12 trials, 1 of them pruned, best AUC 8" in claims["Trials"]
    assert "Random trials beside: 12 trials, 1 of them pruned" in claims["Trials"]
    assert "the best of many is too good a score of itself" in claims["Trials"]
    assert claims["Winner"] == "Trial 7 of TPE: model.filters (4, 8), train.learning_rate 0.00123."
    assert "the winner is the best of the search itself" in claims["Trials"]
    assert claims["Fields"].startswith("Of the AUC over the trials, fields explain by themselves:")
    assert "model.width (9" in claims["Fields"]
    assert "learning_rate" not in claims["Fields"]


def test_tables_have_every_trial_every_field_and_who_was_set_aside(tmp_path):
    tables = {table.key: table for table in search_tables(made(tmp_path))}
    assert list(tables) == [
        "search-aside", "search-aside-differences", "search-importance", "search-trials",
    ]  # fmt: skip
    assert len(tables["search-trials"].rows) == 24
    states = [row[-1].text for row in tables["search-trials"].rows]
    assert states.count("pruned: halves volumes") == 2
    assert tables["search-importance"].rows[0][0].text == "model.width"
    blocks = next(r for r in tables["search-importance"].rows if r[0].text.endswith("_blocks"))
    drawn = trials(True)
    drawn = drawn[drawn["state"].eq("complete") & drawn[f"{PREFIX}model.attention"].eq("se")]
    assert blocks[1].text == str(len(drawn))
    assert len(tables["search-aside"].rows) == 3
    assert "on 40 subjects of the source who were set aside" in tables["search-aside"].note
    assert len(tables["search-aside-differences"].rows) == 2


@pytest.mark.parametrize("objectives", [("auc",), ("auc", "parameters")])
def test_figures_are_drawn_also_of_several_objectives(tmp_path, objectives):
    search = {"objectives": objectives, "pruner": "none"}
    found = search_figures(made(tmp_path, search=search), simulated=True)
    assert [picture.key.removeprefix("search-") for picture in found] == [
        "history", "front", "importance", "slices", "parallel",
    ]  # fmt: skip
    against = "parameters" if len(objectives) > 1 else "multiply-adds"
    assert against in found[1].caption


def test_a_run_without_a_search_has_none(tmp_path):
    assert results.read(epath.Path(tmp_path)) is None
