"""The parts of the page, each with the files it shows."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd

from mri_jax.explanation import pictures
from mri_jax.explanation.check import Checked
from mri_jax.explanation.collect import Collected
from mri_jax.explanation.facts import Facts
from mri_jax.explanation.folder import Folder
from mri_jax.explanation.page import Section
from mri_jax.explanation.pictures import Line
from mri_jax.explanation.sanity import FAILED, RULES
from mri_jax.explanation.selection import ExplainedScan
from mri_jax.filenames import joined_name, safe_name
from mri_jax.runs.labels import SOURCE, of_stage, titled
from mri_jax.showing.numbers import class_named
from mri_jax.showing.table import from_frame, from_rows

_SHOWN_OF_CLASS = 2
_SHOWN_REGIONS = 30


def about(facts: Facts, count: int) -> Section:
    """Returns what was explained, by whom, and how."""
    who = (
        "each scan by the one network whose training fold it was held out from (it chose that "
        "network's epoch)"
        if facts.held_out
        else "each scan by the networks that had it as a test subject, their maps averaged"
    )
    rows = [
        ("Run", f"{facts.run}, {facts.variant}: {'; '.join(map(of_stage, facts.stages))}"),
        ("Scans", f"{count} of {facts.cohort}: {_counts(facts.scans)}; {who}"),
        ("Score", f"{facts.score}; positive values speak for {facts.learned.positive}"),
        ("Regions", facts.regions),
        *((f"Method {name}", note) for name, note in facts.methods.items()),
    ]
    table = from_rows("call", "The call", ("what", "value"), rows)
    notes = [f"Warning: {warning}" for warning in facts.warnings]
    return Section("What was explained", notes=notes, tables=[table])


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{n} {class_named(name)}" for name, n in counts.items())


def verdict_table(checked: Sequence[Checked]) -> pd.DataFrame:
    """Returns a row a (stage, method, check)."""
    rows = [(c.stage, v.method, v.check, v.outcome, v.finding) for c in checked for v in c.verdicts]
    return pd.DataFrame(rows, columns=["stage", "method", "check", "outcome", "finding"])


def checks(to: Folder, verdicts: pd.DataFrame) -> list[Section]:
    """Returns the outcomes, their rules, and the curves of the randomisation."""
    if not len(verdicts):
        note = "Not made: explain makes them with --sanity. Without them a map says little."
        return [Section("Checks", notes=[note])]
    used = verdicts["check"].unique()
    rules = [(name, RULES[name]) for name in used]
    curves = [
        to.png(pictures.cascade_figure(c.curves, c.stage, to.setting.simulated)) for c in to.checked
    ]
    outcomes = verdicts.pivot_table(
        index=["stage", "method"], columns="check", values="outcome", aggfunc="first", sort=False
    ).reset_index()
    tables = [
        from_frame("outcomes", "Outcomes", outcomes, alarm=FAILED),
        from_rows("rules", "Rules", ("check", "passes when"), rules),
        from_frame("findings", "Findings", verdicts, alarm=FAILED),
    ]
    return [Section("Checks", tables=tables), Section("Randomised layers", pictures=curves)]


def cost_table(facts: Facts, scans: pd.DataFrame) -> pd.DataFrame:
    """Returns what each method cost, and the completeness error where it has one."""
    rows = []
    for name, rate in facts.cost.items():
        found = completeness(scans[scans["method"] == name])
        error = ""
        if found:
            error = f"median {found['median_share']:.1%}, largest {found['largest_share']:.1%}"
        rows.append((name, float(f"{rate.volumes_per_second:.3g}"), rate.maps, error))
    columns = ["method", "volumes per second", "maps made", "completeness error"]
    return pd.DataFrame(rows, columns=columns)


def cost(speed: pd.DataFrame, facts: Facts) -> Section:
    """Returns the part about speed and memory; see `cost_table`."""
    note = (
        "Maps of one volume by one network, compilation excluded, on this machine. Completeness "
        "error: how far integrated gradients miss the difference of scores they sum to, as a share "
        f"of it. Peak memory of the process: {facts.peak_memory_gib:.2f} GiB."
    )
    return Section("Cost", tables=[from_frame("speed", "Speed", speed, note)])


def completeness(scans: pd.DataFrame) -> dict[str, float]:
    """Returns the median and largest completeness error and share; empty without any."""
    known = scans.dropna(subset=["completeness_error"])
    if known.empty:
        return {}
    return {
        "median_error": float(known["completeness_error"].median()),
        "largest_error": float(known["completeness_error"].max()),
        "median_share": float(known["completeness_share"].median()),
        "largest_share": float(known["completeness_share"].max()),
    }


def stage_method(to: Folder, stage: str, method: str, note: str, summary: pd.DataFrame) -> Section:
    """Returns the group means, their difference and the regions of one stage and method."""
    folder, key = f"maps/{safe_name(stage)}/{method}", f"{method}-{stage}"
    title = to.title(method, stage)
    negative, positive = to.setting.classes
    means = {
        name: values
        for label, name in ((1, positive), (0, negative))
        if (values := to.collected.mean(stage, method, label)) is not None
    }
    links = [
        (f"mean of {name} (NIfTI)", to.nifti(f"{folder}/mean-{safe_name(name)}.nii.gz", v, title))
        for name, v in means.items()
    ]
    views = {f"mean of {name}": values for name, values in means.items()}
    counts = {
        n: to.collected.counts[stage, method, i]
        for i, n in enumerate((negative, positive))
        if n in means
    }
    lines = [Line(f"{n} mean\nn = {counts[n]}", values, "means") for n, values in means.items()]
    if len(means) == 2:
        words, change = f"{positive} minus {negative}", means[positive] - means[negative]
        place = to.nifti(f"{folder}/difference.nii.gz", change, title)
        links.append((f"{words} (NIfTI)", place))
        views[words] = change
        lines.append(Line(f"{positive} − {negative}", change, "difference"))
    against, towards = to.setting.learned
    caption = (
        f"{title}: group means (one colour scale) and their difference. Red speaks for {towards}, "
        f"blue for {against}; the weakest 80% of the brain's voxels are clear. {note[:1].upper()}"
        f"{note[1:]}."
    )
    mosaic = to.mosaic(key, title, caption, lines)
    for number, (words, values) in enumerate(views.items()):
        place = to.view(f"{key}-{number}", f"{title}: {words}", values)
        links.append((f"{words} (interactive)", place))
    mine = summary[(summary["stage"] == stage) & (summary["method"] == method)]
    drawn = pictures.regions_figure(
        mine, to.setting.classes, title, f"regions-{key}", to.setting.simulated
    )
    view = region_view(mine, to.setting.classes)
    tables = [from_frame(f"table-{key}", "Regions", view, _REGIONS_NOTE)]
    return Section(title, pictures=[mosaic, to.png(drawn)], tables=tables, links=links)


_REGIONS_NOTE = (
    "Mean over subjects [95% bootstrap interval]. Density: share of the map's absolute attribution "
    "over share of the brain's voxels. q: false-discovery rate over these regions (Benjamini and "
    "Hochberg): q difference of the signed attribution between classes (Mann-Whitney), q density "
    "of density against 1 (Wilcoxon). Every volume: tables/regions.csv."
)


def region_view(summary: pd.DataFrame, classes: tuple[str, str]) -> pd.DataFrame:
    """Returns the regions of one stage and method as the page shows them, the densest first."""
    negative, positive = classes
    shown = summary.sort_values(f"density_{positive}", ascending=False).head(_SHOWN_REGIONS)
    columns: dict[str, list[str]] = {"region": shown["region"].tolist()}
    for measure in ("signed", "density"):
        for name in (positive, negative):
            columns[f"{measure} {name}"] = [
                _interval(row, f"{measure}_{name}") for row in shown.to_dict("records")
            ]
    columns["difference"] = [_interval(row, "difference") for row in shown.to_dict("records")]
    for name in ("difference", "density"):
        columns[f"q {name}"] = ["" if math.isnan(q) else f"{q:.3g}" for q in shown[f"q_{name}"]]
    return pd.DataFrame(columns)


def _interval(row: dict[Any, Any], name: str) -> str:
    if math.isnan(row[name]):
        return ""
    centre = f"{row[name]:.3g}"
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    return centre if math.isnan(low) else f"{centre} [{low:.3g}, {high:.3g}]"


def comparisons(to: Folder) -> list[Section]:
    """Returns each tuned stage against the source, over all scans."""
    stages = to.setting.stages
    if SOURCE not in stages:
        return []
    sections = []
    for stage in (s for s in stages if s != SOURCE):
        drawn, links = [], []
        for method in (m.name for m in to.setting.methods):
            source, tuned = (_over_all(to.collected, s, method) for s in (SOURCE, stage))
            change = tuned - source
            words = f"{method}, {of_stage(stage)} minus {SOURCE}"
            name = f"maps/{safe_name(stage)}/{method}/minus-source.nii.gz"
            links.append((f"{words} (NIfTI)", to.nifti(name, change, words)))
            caption = f"{words}: means over all scans; red: more for {to.setting.learned[1]}."
            key = f"{method}-{stage}-minus-{SOURCE}"
            failed = to.title(method, stage).partition(pictures.FAILED_MARK)[2]
            title = words + (f"{pictures.FAILED_MARK}{failed}" if failed else "")
            lines = [
                Line(SOURCE, source, "means"),
                Line(textwrap.fill(of_stage(stage), 18), tuned, "means"),
                Line(f"difference\nfrom {SOURCE}", change, "difference"),
            ]
            drawn.append(to.mosaic(key, title, caption, lines))
        sections.append(
            Section(f"{titled(of_stage(stage))}, against {SOURCE}", pictures=drawn, links=links)
        )
    return sections


def _over_all(collected: Collected, stage: str, method: str) -> np.ndarray:
    keys = [(stage, method, label) for label in (0, 1) if (stage, method, label) in collected.sums]
    total = sum(collected.sums[key] for key in keys)
    return np.asarray(total) / sum(collected.counts[key] for key in keys)


def subjects(to: Folder, scans: Sequence[ExplainedScan], named: Sequence[str]) -> list[Section]:
    """Returns a mosaic a scan, a line a method, of the last stage; interactive if asked for."""
    stage = to.setting.stages[-1]
    table = to.collected.scan_table()
    table = table[table["stage"] == stage].set_index(["subject_id", "session_id"])
    drawn, links = [], []
    for scan in scans if named else shown_scans(scans):
        mine = table.loc[[scan.key]].to_dict("records")
        diagnosis = to.setting.classes[scan.label]
        name = f"{' '.join(filter(None, scan.key))}, {diagnosis}, {of_stage(stage)}"
        key = f"subject-{joined_name(*filter(None, scan.key))}"
        lines = []
        for row in mine:
            values = np.asarray(nib.Nifti1Image.from_filename(str(to.out / row["file"])).dataobj)
            failed = to.title(row["method"], stage).partition(pictures.FAILED_MARK)[2]
            label = f"{row['method']}\n{failed}".replace(": ", ":\n").replace(", ", ",\n").strip()
            lines.append(Line(label, values, row["method"]))
            words = f"{name}: {to.title(row['method'], stage)}"
            links.append((f"{words} (NIfTI)", row["file"]))
            if named:
                place = to.view(f"{key}-{row['method']}", words, values)
                links.append((f"{words} (interactive)", place))
        title = f"{name}, score {mine[0]['score']:+.2f}"
        caption = (
            f"{title}: mean of {mine[0]['networks']} network(s), a line a method, "
            "each with its own colours."
        )
        drawn.append(to.mosaic(key, title, caption, lines))
    return [Section("Single scans", pictures=drawn, links=links)]


def shown_scans(scans: Sequence[ExplainedScan]) -> list[ExplainedScan]:
    """Returns the first few scans of each class, positive first."""
    groups = [[scan for scan in scans if scan.label == label] for label in (1, 0)]
    return [scan for group in groups for scan in group[:_SHOWN_OF_CLASS]]


def files_of_page() -> Section:
    """Returns the files beside the page."""
    rows = [
        ("maps/STAGE/METHOD/COHORT/SUBJECT_SESSION.nii.gz", "a scan's map, mean of its networks"),
        ("maps/STAGE/METHOD/mean-CLASS.nii.gz, difference.nii.gz", "group means"),
        ("maps/STAGE/METHOD/minus-source.nii.gz", "tuned minus source networks, all scans"),
        ("maps/anatomy.nii.gz", "the cohort's mean volume, to lay maps on"),
        ("tables/scans.csv", "a row a scan: score, completeness error, agreement, AUC"),
        ("tables/regions.csv", "a row a scan and region"),
        ("tables/region_summary.csv, .md", "means, intervals, tests, false-discovery rates"),
        ("explain.json", "the call, cost, and checks"),
    ]
    note = "All maps are NIfTI in template space (MNI152, mm, RAS+), in units of the score."
    return Section(
        "Files",
        tables=[from_rows("files-beside", "Beside this page", ("file", "content"), rows, note)],
    )
