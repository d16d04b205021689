import html
import json
import re
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest
import synthetic_run

from mri_jax import files
from mri_jax.cli import main
from mri_jax.reporting.analysis import analyse, load_runs
from mri_jax.reporting.figures import score_figures
from mri_jax.reporting.figures_detail import detail_figures, training_figures
from mri_jax.reporting.figures_layers import layer_figures
from mri_jax.reporting.report import SHAREABLE, write_report
from mri_jax.runs import results
from mri_jax.showing import glossary
from tests.reporting.recorded import rewritten
from tests.reporting.rendering import unrendered

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
NASTY = "cnn5<script>alert(1)</script>&\"'_%$#-w1"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "high"
    synthetic_run.write_run(folder, stages=("tuned-high",), arrays=True)
    assert main(["report", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def analysis(run):
    return analyse(load_runs([str(run)]))


@pytest.fixture(scope="module")
def nasty(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "odd <b>name</b>"
    synthetic_run.write_run(folder, runs=(NASTY,), cohorts={"ADNI1": (9, 11), "Ü&<i>": (8, 12)})
    write_report([str(folder)])
    return folder


def test_every_table_comes_in_three_forms_and_says_simulated(run):
    names = {path.stem for path in (run / results.TABLES).iterdir()}
    assert {"finetune-scores", "finetune-differences", "demographics"} <= names
    for name in names:
        for kind in ("md", "tex"):
            assert "SIMULATED" in (run / results.TABLES / f"{name}.{kind}").read_text(
                encoding="utf-8"
            )
        header, first = (
            (run / results.TABLES / f"{name}.csv").read_text(encoding="utf-8").splitlines()[:2]
        )
        assert header.endswith("simulated")
        assert first.endswith("True")


def test_every_figure_comes_in_two_forms_and_says_simulated(run):
    figures = run / results.FIGURES
    names = {path.stem for path in figures.iterdir()}
    wanted = (
        "scores-ADNI2",
        "roc-AIBL",
        "confusion-ADNI2",
        "distribution-ADNI2",
        "calibration-AIBL",
    )
    assert {f"finetune-{name}" for name in wanted} <= names
    assert {"filters-cnn5-w1", "feature-maps-cnn5-w1", "training-cnn5-w1-source"} <= names
    for name in names:
        assert "SIMULATED" in (figures / f"{name}.svg").read_text(encoding="utf-8")
        assert (figures / f"{name}.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_no_figure_cuts_a_label_or_covers_the_word(analysis):
    made = [*score_figures(analysis), *detail_figures(analysis), *layer_figures(analysis, False)]
    made += training_figures(analysis)
    assert len(made) >= 12
    for picture in made:
        figure = picture.figure
        renderer = figure.canvas.get_renderer()
        shown = [a for a in figure.axes if a.get_visible()] + figure.legends
        boxes = [artist.get_tightbbox(renderer) for artist in shown]
        (word,) = (t for t in figure.texts if t.get_text() == "SIMULATED SCANS")
        lowest = word.get_window_extent(renderer).y0
        for box in boxes:
            assert min(box.x0, box.y0) > -1, picture.key
            assert box.x1 < figure.bbox.width + 1, picture.key
            assert box.y1 < lowest, picture.key


def test_a_real_run_is_not_called_simulated(tmp_path):
    cohorts = {"ADNI1": (9, 11), "AIBL": (8, 12)}
    folder = synthetic_run.write_run(
        tmp_path / "real", simulated=False, cohorts=cohorts, baselines=()
    )
    written = write_report([str(folder)])
    assert "SIMULATED" not in written.page.read_text(encoding="utf-8")
    assert "SIMULATED" not in (folder / results.TABLES / "source-scores.md").read_text(
        encoding="utf-8"
    )
    page = written.page.read_bytes()
    assert write_report([str(folder)]).page.read_bytes() == page


def test_the_page_needs_no_network_and_is_small(run):
    page = (run / results.REPORT).read_text(encoding="utf-8")
    assert len(page) < 15_000_000
    assert not re.findall(r"(?:src|href)=[\"'](?!data:|#)", page)
    assert "://" not in re.sub(r"base64,[A-Za-z0-9+/=]+", "", page)


def test_the_page_holds_the_numbers_of_the_table(run, analysis):
    page = (run / results.REPORT).read_text(encoding="utf-8")
    section = analysis.sections[0]
    row = section.summary.query(
        "method == 'cnn5-w1' and cohort == 'AIBL' and metric == 'auc'"
    ).iloc[0]
    limits = f"[{100 * row['a_low']:.1f}, {100 * row['a_high']:.1f}]"
    shown = f"{100 * row['mean']:.1f} {limits}"
    folded = f"SD {100 * row['sd']:.1f}\nB [{100 * row['b_low']:.1f}, {100 * row['b_high']:.1f}]"
    whole = shown.replace(", ", ",\u00a0")  # an interval is never broken
    assert f'{whole}<span class="details">{folded}</span>' in page
    assert f"{shown} SD {100 * row['sd']:.1f} B" in (
        run / results.TABLES / "finetune-scores.md"
    ).read_text(encoding="utf-8")
    assert "Nadeau" in page


def test_names_from_data_are_escaped_everywhere(nasty):
    page = (nasty / results.REPORT).read_text(encoding="utf-8")
    assert "<script>alert(1)" not in page
    assert "<b>name" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert page.count("<script") == 1
    for path in (nasty / results.FIGURES).glob("*.svg"):
        assert "<script>" not in path.read_text(encoding="utf-8")
    written = [path.name for path in (nasty / results.TABLES).iterdir()]
    assert written
    assert all(re.fullmatch(r"[A-Za-z0-9._%~\-]+", name) for name in written)
    for path in (nasty / results.TABLES).glob("*.md"):
        assert "<" not in path.read_text(encoding="utf-8")


def test_shareable_leaves_out_people_places_and_scans(tmp_path):
    folder = synthetic_run.write_run(
        tmp_path / "secret",
        simulated=False,
        stages=("tuned-high",),
        arrays=True,
        cohorts={"ADNI1": (9, 11), "ADNI2": (15, 15)},
    )
    rewritten(folder, {"data": {"cohort": "/home/me/cohort.csv", "store": "/home/me/store"}})
    provenance = folder / results.PROVENANCE
    (folder / results.HISTORY).unlink()
    provenance.write_text(
        '{"simulated": false, "command": ["/home/me/launch.py"], "date": "2031-05-06", '
        '"git_commit": "abc"}',
        encoding="utf-8",
    )
    with unrendered():
        full = write_report([str(folder)]).page.read_text(encoding="utf-8")
    assert "/home/me" in full
    assert "feature maps of CNN-5" in full
    written = write_report([str(folder)], share=True)
    shared = written.page.read_text(encoding="utf-8")
    assert written.page.name == SHAREABLE
    for secret in ("/home/me", "2031-05-06", "feature maps of CNN-5", "secret"):
        assert secret not in shared
    assert not re.search(r"(ADNI1|ADNI2|AIBL)_[AC]\d{4}", shared)
    assert "First-layer filters of CNN-5" in shared
    assert "abc" in shared
    assert "Run 1: metrics.jsonl is absent." in shared


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")
@pytest.mark.parametrize("which", ["run", "nasty"])
def test_latex_compiles(which, request, tmp_path):
    folder = request.getfixturevalue(which)
    paths = sorted((folder / results.TABLES).glob("*.tex"))
    assert len(paths) >= 5
    body = "\n\\clearpage\n".join(path.read_text(encoding="utf-8") for path in paths)
    head = "\\documentclass{article}\n\\usepackage{graphicx}\n\\begin{document}\n"
    document = head + body + "\n\\end{document}\n"
    (tmp_path / "all.tex").write_text(document, encoding="utf-8")
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"],
        cwd=tmp_path, capture_output=True, timeout=120, check=False, encoding="utf-8")  # fmt: skip
    assert done.returncode == 0, done.stdout[-1500:]
    assert not re.findall(r"Float too large|Overfull .hbox.*", done.stdout)


def test_five_panels_stand_in_a_column_on_a_narrow_screen(analysis, run):
    drawn = next(p for p in score_figures(analysis) if p.key == "finetune-scores-ADNI2")
    assert drawn.narrow.get_figwidth() < 4.5
    across = {round(axes.get_position().x0, 3) for axes in drawn.narrow.axes}
    assert len(drawn.narrow.axes) == 5
    assert len(across) == 1
    assert (run / results.REPORT).read_text("utf-8").count('media="(max-width: 700px)"') == 2


PROBE = """
<script>
window.addEventListener("load", () => {
  const table = document.querySelector("#finetune-scores ~ .scroll table");
  const column = 3;
  const values = () => [...table.tBodies[0].rows].map((r) => Number(r.cells[column].dataset.value));
  const button = table.tHead.rows[0].cells[column].querySelector("button");
  button.click();
  const up = values();
  button.click();
  const down = values();
  const images = [...document.querySelectorAll("figure img")];
  document.querySelector("figure button").click();
  const unfolded = document.querySelector(".unfold");
  const details = unfolded.nextElementSibling.querySelector(".details");
  const folded = details.checkVisibility();
  unfolded.open = true;
  const shown = details.checkVisibility();
  document.querySelector(".term").click();
  const explained = document.querySelector("[popover]:popover-open").textContent;
  const enlarged = document.querySelector("dialog").open;
  const loaded = images.filter((i) => i.complete && i.naturalWidth > 100).length;
  document.body.dataset.probe = JSON.stringify({up, down, images: images.length, loaded, enlarged,
    folded, shown, explained});
});
</script></body>"""


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_in_a_browser_tables_sort_figures_load_and_enlarge(run, tmp_path):
    page = tmp_path / "probe.html"
    page.write_text(
        (run / results.REPORT).read_text(encoding="utf-8").replace("</body>", PROBE),
        encoding="utf-8",
    )
    quiet = "--no-sandbox --disable-gpu --disable-quic --no-first-run --enable-logging=stderr"
    done = subprocess.run(
        [
            CHROMIUM,
            "--headless",
            *quiet.split(),
            "--disable-background-networking",
            f"--user-data-dir={tmp_path}",
            "--virtual-time-budget=8000",
            "--dump-dom",
            page.as_uri(),
        ],
        capture_output=True,
        timeout=120,
        check=True,
        encoding="utf-8",
    )
    assert "CONSOLE" not in done.stderr, done.stderr
    found = re.search(r'data-probe="([^"]*)"', done.stdout)
    assert found
    probe = json.loads(found[1].replace("&quot;", '"'))
    assert probe["up"] == sorted(probe["up"])
    assert probe["down"] == sorted(probe["up"], reverse=True)
    assert len(set(probe["up"])) > 5
    assert probe["images"] == probe["loaded"] >= 10
    assert probe["enlarged"]
    assert [probe["folded"], probe["shown"]] == [False, True]
    assert probe["explained"] in {f"{term} {told}" for term, told in glossary.TERMS.items()}


def test_a_users_mistake_gives_one_line_and_code_two(tmp_path, capsys):
    assert main(["report", str(tmp_path / "absent")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


AILING = {
    "PERFECT": "perfect separation",
    "SINGLE": "no positive subject",
    "SAME": "give identical scores",
    "HOLES": "1 of 85 scores are NaN",
    "LONE": "a class has a single subject",
}


def _spoilt(frame):
    """Each cohort with an ailment of its own."""
    where = {name: frame["cohort"].eq(name) for name in AILING}
    network = frame["run"].eq("cnn5-w1")
    margin = np.where(frame["label"] == 1, 3.0, -3.0)
    same = where["SAME"] & network
    first = frame[same].groupby("subject_id")["logit_1"].transform("first")
    score = frame["logit_1"] - frame["logit_0"]
    score = score.where(~where["PERFECT"], margin)
    score.loc[same] = first
    score.loc[frame[where["HOLES"] & network].index[3]] = np.nan
    frame = frame.assign(logit_0=0.0, logit_1=score)
    return frame[~(where["SINGLE"] & frame["label"].eq(1))]


def test_bad_input_is_stated_plainly_on_the_page(tmp_path):
    counts = {"ADNI1": (9, 11), **dict.fromkeys(AILING, (8, 9)), "LONE": (1, 9)}
    folder = synthetic_run.write_run(tmp_path / "bad", cohorts=counts, baselines=())
    path = folder / results.PREDICTIONS
    text = {"subject_id": str, "session_id": str}
    spoilt = _spoilt(pd.read_csv(path, dtype=text))
    files.write_csv(path, synthetic_run.with_probabilities(spoilt))
    for name in (results.COHORT, results.PROVENANCE):
        (folder / name).unlink()
    assert main(["report", str(folder)]) == 0
    page = (folder / results.REPORT).read_text(encoding="utf-8")
    bare = re.sub(r"<script>.*</script>|<style>.*</style>|<[^>]*>", " ", page, flags=re.S)
    shown = html.unescape(bare)
    assert len(shown) < 100_000
    for name, words in AILING.items():
        assert re.search(rf"{name}[^\n]*{words}|{words}", shown), name
    assert "cohort.csv is absent" in shown
    assert "does not say whether the scans are simulated" in shown
    forms = [path.read_text(encoding="utf-8") for path in (folder / results.TABLES).glob("*.md")]
    forms += [path.read_text(encoding="utf-8") for path in (folder / results.TABLES).glob("*.tex")]
    for text in (shown, *forms):
        assert not re.search(r"\b(nan|inf|NaT)\b", text)
    assert ">None<" not in page


@pytest.mark.usefixtures("unrendered")
@pytest.mark.parametrize("every", [True, False])
def test_nan_logits_end_in_notes_of_every_table(tmp_path, every):
    cohorts = {"ADNI1": (9, 11), "ADNI2": (10, 12), "AIBL": (8, 12)}
    folder = synthetic_run.write_run(tmp_path / "run", cohorts=cohorts, stages=("tuned-high",))
    table = pd.read_csv(folder / results.PREDICTIONS)
    one = table["fold"].eq(1) & table["subject_id"].eq("AIBL_A0002")
    bad = ~table["run"].str.startswith("baseline") & (one | every)
    for name in ("logit_0", "logit_1", "probability"):
        table[name] = table[name].mask(bad)
    files.write_csv(folder / results.PREDICTIONS, table)
    text = write_report([str(folder)]).page.read_text(encoding="utf-8")
    fold = "fold 0, 1, 2, 3, 4" if every else "fold 1"
    said = f"{100 if every else 1} of 100 scores are NaN ({fold})"
    assert f"cnn5-w1 source AIBL: {said}" in text
    tests = pd.read_csv(folder / results.TABLES / "finetune-differences.csv")
    tests = tests[tests["cohort"].eq("AIBL")]
    assert tests[["difference", "p", "p_holm"]].isna().all(axis=None)
    assert tests["note"].str.endswith(said).all()
    scores = pd.read_csv(folder / results.TABLES / "finetune-scores.csv")
    scores = scores[scores["cohort"].eq("AIBL") & scores["run"].eq("cnn5-w1")]
    assert scores["mean"].isna().all()
    assert scores["note"].str.endswith(said).all()


def test_a_report_made_again_draws_with_the_seed_of_its_run(tmp_path, monkeypatch):
    class Asked(Exception):
        pass

    seeds = []

    def asked(runs, seed):
        seeds.append(seed)
        raise Asked

    run = synthetic_run.write_run(tmp_path / "r", cohorts={"ADNI1": (9, 11), "AIBL": (8, 12)})
    config = files.read_json(run / "config.json")
    files.write_json(run / "config.json", {**config, "seed": 77})
    monkeypatch.setattr("mri_jax.reporting.report.analyse", asked)
    for arguments in (["report", str(run)], ["report", str(run), "--seed", "3"]):
        with pytest.raises(Asked):
            main(arguments)
    assert seeds == [77, 3]
