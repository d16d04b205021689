"""What a terminal is told of a report."""

import dataclasses

import pytest
import synthetic_run

from mri_jax.reporting.analysis import analyse, load_runs
from mri_jax.reporting.compared import compared, published_table
from mri_jax.reporting.findings import findings
from mri_jax.reporting.published import read_published
from mri_jax.reporting.words import LINES, in_words


@pytest.fixture(scope="module")
def analysis(tmp_path_factory):
    """Two tables of two targets each."""
    folder = tmp_path_factory.mktemp("runs") / "both"
    synthetic_run.write_run(folder, runs=("cnn5-w1", "cnn7-w1"), stages=("tuned-high",))
    return analyse(load_runs([str(folder)]))


def test_a_single_target_is_told_whole(analysis):
    section = next(s for s in analysis.sections if s.family.key == "depth")
    one = dataclasses.replace(
        section, entries=tuple(e for e in section.entries if e.cohort != "AIBL")
    )
    said = in_words(dataclasses.replace(analysis, sections=(one,)))
    assert len(said) <= LINES
    (found,) = findings(dataclasses.replace(analysis, sections=(one,)))
    assert said[0] == (
        f"In short (SIMULATED scans), ADNI2 ({found.subjects}); p is adjusted for several tests:"
    )
    assert said[1].startswith("  Networks failed or have hardly learnt: ")
    whole = " ".join(line.strip() for line in said)
    for claim in found.claims:
        assert f"- {claim.about}: {claim.text.replace('adjusted p', 'p')}" in whole


def test_of_many_targets_each_has_its_first_sentence_before_any_has_its_second(analysis):
    assert len(findings(analysis)) == 6
    said = in_words(analysis)
    assert len(said) <= LINES
    assert said[-1] == "  The report says more."
    abouts = [line.split(":")[0] for line in said if line.startswith("  - ")]
    assert set(abouts) == {"  - AUC"}
    assert len(abouts) >= 4
    assert f"  ADNI2 ({findings(analysis)[0].subjects}), Network depth, width 1" in said


def test_several_tables_open_with_a_map(analysis):
    rows = compared(analysis)
    assert [row.key for row in rows] == ["depth", "finetune-cnn5-w1", "finetune-cnn7-w1"]
    assert rows[0].networks == "CNN-5; CNN-7"
    assert rows[1].title.startswith("Fine-tuning of CNN-5: ")
    assert rows[0].sources == "ADNI1"
    assert [row.tuned for row in rows] == ["", "ADNI2", "ADNI2"]
    assert rows[0].targets.startswith("ADNI2 (")
    assert rows[0].runs == "both"


def test_the_paper_stands_beside_ours(analysis, tmp_path):
    path = tmp_path / "published.csv"
    path.write_text(
        "family,cohort,run,metric,mean,sd,source\n"
        "depth,AIBL,cnn7-w1,auc,91.25,0.75,Table 1\n"
        "depth,NOWHERE,cnn7-w1,auc,91.25,0.75,Table 1\n",
        encoding="utf-8",
    )
    table = published_table(analysis, read_published(path))
    ((label, cohort, score, ours, printed, place),) = table.rows
    assert [c.text for c in (label, cohort, score, printed, place)] == [
        "CNN-7, source", "AIBL", "AUC", "91.2 ± 0.8", "Table 1",
    ]  # fmt: skip
    found = analysis.sections[0].summary.query(
        "cohort == 'AIBL' and method == 'cnn7-w1' and metric == 'auc' and split == 'test'"
    )
    assert ours.value == found["mean"].item()
    assert published_table(analysis, None) is None
