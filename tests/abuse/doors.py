"""The six doors: what each reads, how it is asked, and which damage a check there could see."""

import csv
import hashlib
import io
import json
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mri_jax import cli
from mri_jax.errors import UserError
from tests.abuse import made, mutations
from tests.abuse.workers import Case

# What no table can show: another valid value, a row or an optional column that is not there.
UNSEEABLE = {
    mutations.flip, mutations.flip_head, mutations.drop_row, mutations.shuffle_rows,
    mutations.drop_column, mutations.odd_cell, mutations.swap_cells, mutations.insert,
    mutations.remove, mutations.lost_link, mutations.truncate, mutations.no_rows,
    mutations.nifti_header,
}  # fmt: skip


@dataclass(frozen=True)
class Door:
    """One way in.

    Attributes:
      name: For the table.
      made: The folder of `made` that is copied for a case.
      targets: Patterns of the files that are damaged; those that come twice, twice as often.
      ask: Reads the folder as a user's command does; returns what came of it, as JSON.
      digests: Patterns of files whose every byte is written down elsewhere: whatever becomes of
        them, a result that differs is silent.
    """

    name: str
    made: str
    targets: tuple[str, ...]
    ask: Callable[[Path], Any]
    digests: tuple[str, ...] = ()


def command(*arguments: str) -> int:
    """A command's exit code; 2 ends the child as a refusal."""
    code = cli.main(arguments)
    if code == 2:
        raise SystemExit(2)
    return code


def digest(folder: Path, *names: str) -> str:
    """Of the names and bytes of files and all files below folders, wherever ``folder`` is."""
    found, paths = hashlib.sha256(), [folder / name for name in names]
    for path in sorted(p for top in paths for p in (top.rglob("*") if top.is_dir() else [top])):
        if path.is_file() and ".locks" not in path.parts:
            content = path.read_bytes().replace(str(folder).encode(), b"")
            found.update(path.name.encode() + b"\0" + content)
    return found.hexdigest()


def _planned(folder: Path) -> Any:
    from mri_jax.settings.study import Study
    from mri_jax.study.prepare import planned
    from mri_jax.study.stages import StageFolders

    study = Study.parse(made.study_config(folder))
    catalogue, plan = planned(study, StageFolders(folder / "stages"))
    return catalogue, plan, study


def _check_volumes(folder: Path, catalogue: Any, plan: Any, study: Any) -> Any:
    """The volumes that a study needs, compared with the index as it does before it computes."""
    from mri_jax.study.feeds import Volumes, check_volumes
    from mri_jax.volumes.store import VolumeStore

    store = VolumeStore(folder / "store")
    volumes = Volumes(store, catalogue, study.data.intensities, folder / "references", 1)
    rows = sorted({row for stage in plan.stages() for e in stage.examples for row in e.rows})
    check_volumes(volumes, rows)
    return volumes, rows


def _table(folder: Path) -> Any:
    from mri_jax.study.announce import notes_on

    command("cohort", "check", str(folder / "cohort.csv"), "--out", str(folder / "out.csv"))
    catalogue, plan, study = _planned(folder)
    _check_volumes(folder, catalogue, plan, study)
    fingerprints = [stage.fingerprint for stage in plan.stages()]
    told = [note.replace(str(folder), "") for note in notes_on(plan, catalogue)]
    return {"found": [digest(folder, "out.csv"), *fingerprints], "told": told}


def _bids(folder: Path) -> Any:
    command(
        "cohort",
        "bids",
        str(folder),
        "--cohort",
        "SITE",
        "--out",
        str(folder / "out" / "cohort.csv"),
    )
    left_out = (folder / "out" / "excluded.csv").read_text(encoding="utf-8")
    return {"found": digest(folder, "out/cohort.csv"), "told": left_out}


def _scans(folder: Path) -> Any:
    arguments = ["--input", str(folder / "scans.csv"), "--out", str(folder / "out")]
    code = command("preprocess", *arguments, "--grid", "demo", "--no-n4", "--brain", "mask")
    if code:
        raise UserError((folder / "out" / "failed.csv").read_text(encoding="utf-8"))
    return digest(folder, "out/volumes", "out/masks")


def _store(folder: Path) -> Any:
    catalogue, plan, study = _planned(folder)
    volumes, rows = _check_volumes(folder, catalogue, plan, study)
    read = volumes.reader().load(1, rows)
    return [*catalogue.keys], hashlib.sha256(np.ascontiguousarray(read).data).hexdigest()


def _results(folder: Path) -> Any:
    """Read a run as its report, its explanation, and the study that continues it do."""
    from mri_jax.reporting.analysis import analyse, load_runs
    from mri_jax.reporting.cautions import cautions
    from mri_jax.reporting.demographics import demographics_table, flow_table
    from mri_jax.reporting.figures_detail import training_figures
    from mri_jax.reporting.figures_layers import layer_figures
    from mri_jax.runs.trained import open_run

    run = open_run(folder / "run", folder / "stages", folder / "data" / "store")
    analysis = analyse(load_runs([str(folder / "run")]))
    shown = [demographics_table(analysis).rows, flow_table(analysis).rows, cautions(analysis)]
    drawn = [p.caption for p in (*training_figures(analysis), *layer_figures(analysis, False))]
    weights = hashlib.sha256()
    for member in run.members:
        for layer, leaves in sorted(member.load().params.items()):
            for leaf in leaves.values():
                weights.update(layer.encode() + np.asarray(leaf).tobytes())
    scores = run.results.predictions
    said = scores.assign(probability=scores["probability"].round(6)).drop(columns="logit_0")
    said["logit_1"] = said["logit_1"].round(6)
    found = [repr(shown), drawn, weights.hexdigest(), said.to_csv()]
    return {"found": found, "told": list(run.results.missing)}


def _stages(folder: Path) -> Any:
    """Finish a study all of whose stages are there."""
    from mri_jax.settings.study import Study
    from mri_jax.study import history, outputs
    from mri_jax.study.prepare import planned
    from mri_jax.study.stages import StageFolders

    config = json.loads((folder / "config.json.kept").read_text(encoding="utf-8"))
    config["data"] |= {"cohort": str(folder / "data" / "cohort.csv")}
    config["data"] |= {"store": str(folder / "data" / "store")}
    folders = StageFolders(folder / "stages")
    catalogue, plan = planned(Study.parse(config), folders)
    unfinished = [stage.kind for stage in plan.stages() if not folders.finished(stage)]
    if unfinished:
        return "done anew"
    history.write_history(folder / "out", plan, folders)
    return unfinished, outputs.predictions_of(plan, catalogue, folders).to_csv()


def _model(folder: Path) -> Any:
    from mri_jax.prediction import folder as models

    model = models.load(folder / "model")
    return repr([model.name, model.grid, model.normalisation, model.notes, model.training])


ALL = ("*",)
DOORS = (
    Door("cohort table", "table", ("cohort.csv", "cohort.csv", "store/index.csv"), _table),
    Door(
        "BIDS tree",
        "bids",
        ("participants.tsv", "participants.tsv", "*_sessions.tsv", "*_T1w.nii", "*.json"),
        _bids,
    ),
    Door("scans, preprocess", "scans", ("scans.csv", "*_T1w.nii", "*_T1w.nii"), _scans),
    Door(
        "store",
        "store",
        ("store.json", "index.csv", "volumes/*/*.npy", "masks/*/*.npy"),
        _store,
        digests=("store.json", "*.npy"),
    ),
    Door(
        "results folder",
        "results",
        (
            *("run/predictions.csv", "run/predictions.csv", "run/plan.json", "run/config.json"),
            *("run/metrics.jsonl", "run/provenance.json", "run/cohort.csv", "run/flow.csv"),
            *("run/filters.npz", "run/feature_maps.npz", "run/metrics.csv"),
        ),
        _results,
    ),
    Door(
        "results folder",
        "results",
        ("stages/*/stage.json", "stages/*/logits.csv", "stages/*/history.json"),
        _stages,
        digests=("*/logits.csv", "*/history.json"),
    ),
    Door(
        "results folder",
        "results",
        ("stages/source-*/network/*", "stages/tune-*/network/*", "stages/source-*/network/*/*"),
        _results,
        digests=("*/network/*",),
    ),
    Door("results folder", "model", ("model/*", "model/networks/*"), _model, digests=ALL),
)


def mutated(base: Path, work: Path, count: int, seed: int, doors: tuple = DOORS) -> Iterator[Case]:
    """Cases of damaged files, shared out over the doors."""
    names = list(dict.fromkeys(door.name for door in doors))
    for number in range(count):
        name = names[number % len(names)]
        of_name = [door for door in doors if door.name == name]
        draw = random.Random(f"{seed} {number}")
        door = of_name[(number // len(names)) % len(of_name)]
        yield _case(number, door, base, work / f"{number}", draw)


def _case(number: int, door: Door, base: Path, work: Path, draw: random.Random) -> Case:
    top, name = base / door.made, f"{door.name} {number}"
    for _ in range(100):
        pattern = draw.choice(door.targets)
        found = sorted(p for p in top.rglob(pattern) if p.is_file())
        if found:
            break
    target = draw.choice(found).relative_to(top)
    others = [p.relative_to(top) for p in found if p.relative_to(top) != target]
    if others and draw.random() < 0.06:
        other = draw.choice(others)
        return Case(
            f"{name}: {target} swapped with {other}",
            lambda: ask(door, top, work, target, lambda: _swap(work / target, work / other)),
            door.name,
        )
    mutation = draw.choice(mutations.of(top / target))
    seed = draw.random()
    words = f"{name}: {mutation.__name__} {target}"

    def damage() -> None:
        mutation(random.Random(seed), work / target)

    return Case(words, lambda: ask(door, top, work, target, damage), door.name)


def _swap(one: Path, other: Path) -> None:
    kept = one.with_name("kept.tmp")
    one.rename(kept)
    other.rename(one)
    kept.rename(other)


def ask(
    door: Door,
    top: Path,
    work: Path,
    target: Path = Path("none"),
    damage: Callable[[], None] = lambda: None,
) -> Any:
    """Copy what a door reads, damage it and ask: the result, and whether a form is broken."""
    shutil.copytree(top, work, symlinks=True)
    damage()
    broken = is_broken(work / target)
    try:
        return {"result": door.ask(work), "broken": broken}
    finally:
        shutil.rmtree(work, ignore_errors=True)


def is_broken(path: Path) -> bool:
    """Whether the standard library alone finds a table or JSON malformed.

    That is: no UTF-8, control characters, rows of unequal length, a name twice in a header or an
    object, or no JSON.
    """
    kinds = {".csv": ",", ".tsv": "\t", ".json": "", ".jsonl": ""}
    if path.suffix not in kinds or not path.is_file() or path.stat().st_size > 10**7:
        return False
    try:
        text = path.read_bytes().decode("utf-8")
        if path.suffix == ".json":
            json.loads(text, object_pairs_hook=_once)
        elif path.suffix == ".jsonl":
            [json.loads(line, object_pairs_hook=_once) for line in text.splitlines()]
        else:
            reader = csv.reader(io.StringIO(text, newline=""), delimiter=kinds[path.suffix])
            rows = list(reader)
            _once([(name, None) for name in rows[0]] if rows else [])
            return len({len(row) for row in rows}) > 1 or any(
                ord(c) < 32 for c in text if c not in "\r\n\t\v\f"
            )
    except (ValueError, csv.Error, RecursionError):
        return True
    return False


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({name for name, _ in pairs}) < len(pairs):
        raise ValueError("a name occurs twice")
    return dict(pairs)


def door_of(case: Case, doors: tuple = DOORS) -> tuple[Door, str, str]:
    """The door of a case, its mutation and its file."""
    _, words = case.name.split(": ", 1)
    name, target = words.split(" ", 1)
    swapped = " swapped with " in words
    if swapped:
        name, target = "swap", words.split(" ", 1)[0]
    for door in doors:
        if door.name == case.group and any(Path(target).match(p) for p in door.targets):
            return door, name, target
    raise KeyError(case.name)


def is_told(result: Any, whole: Any) -> bool:
    """Whether a result that differs from the undamaged one says so itself."""
    return isinstance(result, dict) and result["told"] != whole["told"]


def is_seeable(case: Case) -> bool:
    """Whether a check could see the damage: it breaks a form, or bytes are written down."""
    door, name, target = door_of(case)
    if any(Path(target).match(pattern) for pattern in door.digests):
        return True
    if name == "swap":
        return False
    if name == "truncate" and case.group == "results folder":
        return not target.endswith((".json", ".jsonl"))
    return name not in {mutation.__name__ for mutation in UNSEEABLE}


def configured(base: Path, count: int, seed: int) -> Iterator[Case]:
    """Cases of config fields with values that nobody meant."""
    for number in range(count):
        draw = random.Random(f"config {seed} {number}")
        config = made.study_config(base / "table")
        *way, last = draw.choice(mutations.places(config))
        value = draw.choice(
            (*mutations.ODD_VALUES, *mutations.ODD_CELLS, (3,), ({},), 1e-320, b"x")
        )
        inner: Any = config
        for name in way:
            inner = inner[name]
        words = f"config: {'.'.join(map(str, (*way, last)))}"
        if draw.random() < 0.15:
            words += " removed"
            del inner[last]
        else:
            words += f" = {value!r:.60}"
            inner[last] = value
        yield Case(words, lambda config=config: configured_study(config), "config")


def configured_study(config: dict[str, Any]) -> Any:
    """Plan a study of a config: the fingerprints of its stages."""
    from mri_jax.settings.study import Study
    from mri_jax.study.prepare import planned
    from mri_jax.study.stages import StageFolders

    _, plan = planned(Study.parse(config), StageFolders("/nowhere/stages"))
    return [stage.fingerprint for stage in plan.stages()]
