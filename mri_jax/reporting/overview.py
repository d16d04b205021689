"""Tables of what was run: the studies, and the networks of each."""

from collections import Counter
from collections.abc import Sequence

from mri_jax import adaptation
from mri_jax.evaluation.families import SOURCE, Method
from mri_jax.evaluation.variants import of_baselines
from mri_jax.problems import counted
from mri_jax.reporting import trainings
from mri_jax.reporting.analysis import Analysis
from mri_jax.runs.labels import titled
from mri_jax.settings.study import Study
from mri_jax.showing.numbers import DASH
from mri_jax.showing.table import Cell, Table, from_rows, text, without_empty


def runs_table(analysis: Analysis) -> Table:
    """Returns each run's question and device; variants of a study may override its source."""
    rows = []
    for name, run in zip(analysis.names, analysis.runs, strict=True):
        study = run.study
        where = _devices(run.provenance.devices if run.provenance else ())
        makers = run.plan["made_by"].nunique() if "made_by" in run.plan else 0
        if makers > 1:
            where += f" ({makers} machines or workers)"
        asked = (
            ("",) * 5
            if study is None
            else (
                f"{study.name}:{study.preset}",
                f"{study.task.positive} against {study.task.negative}",
                *_trained_and_tested(study),
                str(study.seed),
            )
        )
        rows.append((name, *(value or DASH for value in (*asked, where))))
    header = ("Run", "Config", "Task", "Source", "Targets", "Seed", "Device")
    note = "Variants of a run may override its task, source or network; the table below lists them."
    return from_rows("runs", "Runs", header, rows, note)


def _trained_and_tested(study: Study) -> tuple[str, str]:
    """Returns the cohorts of a study's source and its targets."""
    if study.sites.minimum:
        return "all sites but the one left out", "each site"
    return ", ".join(study.source.cohorts), ", ".join(study.targets)


def _devices(recorded: Sequence[str]) -> str:
    """Returns for example ``2 × NVIDIA H100``."""
    each = Counter(map(_device, recorded))
    return ", ".join(f"{count} × {kind}" if count > 1 else kind for kind, count in each.items())


def _device(recorded: str) -> str:
    """Returns ``CPU`` or the name of an accelerator for ``cpu:cpu``, ``gpu:NVIDIA H100``."""
    platform, _, kind = recorded.partition(":")
    return "CPU" if platform == "cpu" else kind or platform


def networks_table(analysis: Analysis) -> Table:
    """Returns every network variant and stage: how many networks, what they trained."""
    rows = []
    plan, marks = analysis.plan, trainings.marks(analysis)
    frame = analysis.predictions.groupby(["run", "stage"], sort=False)
    variants = analysis.variants
    ways = (adaptation.of_stage(stage) for stage in analysis.predictions["stage"].unique())
    label_free = any(way.label_free for way in ways if way)
    for (run, stage), group in sorted(frame, key=lambda item: variants[item[0][0]].is_baseline):
        count = len(group[["repeat", "fold"]].drop_duplicates())
        if stage == "source":
            count = group["fold"].nunique()
        trained = ""
        if len(plan) and "trainable_parameters" in plan.columns:
            found = plan[(plan["run"] == run) & (plan["stage"] == stage)]["trainable_parameters"]
            known = found.dropna()
            trained = f"{int(known.iloc[0]):,}" if len(known) else ""
        cohorts = ", ".join(dict.fromkeys(group.loc[group["split"].eq("test"), "cohort"]))
        value = float(trained.replace(",", "")) if trained else float("nan")
        rows.append(
            (
                text(titled(analysis.label(run, stage))),
                text(run),
                text("" if variants[run].is_baseline else stage),
                Cell(str(count), float(count)),
                Cell(trained or DASH, value),
                text(_of_labels(stage) if label_free else ""),
                text(cohorts or DASH),
                text(marks.get(Method(run, stage).name, "")),
            )
        )
    header = (
        "Method", "Variant", "Stage", "Networks", "Parameters trained", "Target's labels",
        "Tested on", "Remarks",
    )  # fmt: skip
    columns, shown = without_empty(header, rows)
    note = "Variant and stage are the method's name in files, commands and the downloaded tables."
    return Table("networks", "Networks", columns, shown, note)


def _of_labels(stage: str) -> str:
    """Returns whether a network learnt from labels of the target; of a source network nothing."""
    way = adaptation.of_stage(stage)
    if stage == SOURCE:
        return DASH
    return "not used" if way and way.label_free else "used"


def subtitle(analysis: Analysis) -> str:
    """Returns ``10 networks, 87 scans, 1 comparison``."""
    rows = analysis.predictions
    networks = rows.loc[~of_baselines(rows), ["run", "stage", "repeat", "fold"]]
    count = len(networks.drop_duplicates())
    scans = len(rows[["subject_id", "session_id"]].drop_duplicates())
    comparisons = counted(len(analysis.sections), "comparison")
    return f"{counted(count, 'network')}, {counted(scans, 'scan')}, {comparisons}"
