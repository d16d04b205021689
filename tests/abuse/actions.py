"""Commands that are killed, run twice or run on a full disk, and the files that must not suffer."""

import functools
import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from absl import app

import launch
from tests.abuse import made
from tests.abuse.doors import command

PAGE = 4096
TIMES = ("seconds", "waiting")
ROOT = Path(__file__).resolve().parents[2]
FIELDS = {
    "data.repeated": "refuse",
    "targets": "('ADNI2',)",
    "model.preset": "",
    **{f"model.{name}": value for name, value in made.SMALL_MODEL.items() if name != "preset"},
    "train.folds": 3,
    "train.batch": 4,
    "train.min_epochs": 4,
    "train.max_epochs": 4,
    "train.learning_rate": 1e-3,
    "finetune.epochs": 2,
    "finetune.inner_folds": 0,
    "finetune.parts": 3,
    "finetune.statistics": "('keep',)",
    "baselines.voxels": False,
    "save_seconds": 0.0,
}


@dataclass(frozen=True)
class Action:
    """One command.

    Attributes:
      name: For the table.
      inputs: Of `made`, copied to where the command runs.
      act: The command, given that folder; runs in a child.
      outputs: Patterns of what it writes that is compared byte by byte.
    """

    name: str
    inputs: tuple[str, ...]
    act: Callable[[Path], Any]
    outputs: tuple[str, ...]

    def prepare(self, base: Path, folder: Path) -> Path:
        """A fresh folder with the inputs; compiled programs are there, as after any first run."""
        for name in self.inputs:
            shutil.copytree(base / name, folder / name, symlinks=True)
        if (base / "xla").exists() and self.name == "study":
            shutil.copytree(base / "xla", folder / "stages" / "xla")
        return folder

    def command(self, folder: Path) -> Callable[[], None]:
        """What runs in a child: any exit code but 0 and 2 is an error there."""

        def run() -> None:
            code = self.act(folder)
            if code:
                raise AssertionError(f"{self.name}: exit code {code}")

        return run

    def written(self, folder: Path) -> dict[str, str]:
        """Digest of every output by its name; what a killed process was writing has another."""
        paths = {p for pattern in self.outputs for p in folder.glob(pattern) if p.is_file()}
        return {
            str(p.relative_to(folder)): hashlib.sha256(_timeless(p)).hexdigest()
            for p in paths
            if not (p.name.startswith(".") and p.name.endswith(".tmp"))
        }


def _timeless(path: Path) -> bytes:
    """Content without what no two runs have in common: seconds, and their share of waiting."""
    content = path.read_bytes()
    if path.name != "metrics.jsonl":
        return content
    rows = [json.loads(line) for line in content.splitlines()]
    return json.dumps([{n: v for n, v in row.items() if n not in TIMES} for row in rows]).encode()


def study(folder: Path, workdir: str = "run", *more: str) -> int:
    """``launch.py`` in this child, which imported it with its parent."""
    os.chdir(ROOT)
    data = {"data.cohort": folder / "table/cohort.csv", "data.store": folder / "table/store"}
    fields = {**data, **FIELDS}
    argv = [
        "launch.py",
        f"--config={ROOT}/configs/finetune_high.py:smoke",
        f"--workdir={folder / workdir}",
        f"--stages={folder / 'stages'}",
        "--noreport",
        *(f"--config.{name}={value}" for name, value in fields.items()),
        *more,
    ]
    sys.argv = argv  # where ml_collections looks for fields of the config
    app.run(launch.main, argv, flags_parser=launch.parse_flags)
    return 0


def preprocess(folder: Path) -> int:
    table = str(folder / "many" / "scans.csv")
    arguments = ["preprocess", "--input", table, "--out", str(folder / "out"), "--grid", "demo"]
    return command(*arguments, "--no-n4", "--brain", "mask")


def report(folder: Path) -> int:
    return command("report", str(folder / "results" / "run"))


def predict(folder: Path) -> int:
    model, store = str(folder / "model" / "model"), str(folder / "many" / "store")
    return command("predict", model, store, "--out", str(folder / "out"), "--pages")


_RUN = (
    *("predictions.csv", "metrics.csv", "metrics.jsonl", "cohort.csv", "flow.csv", "tables/*"),
    *("filters.npz", "feature_maps.npz", "events/**/*tfevents*"),
)
STUDY = Action(
    "study", ("table",), study, (*(f"run/{name}" for name in _RUN), "stages/*/logits.csv")
)
PREPROCESS = Action(
    "preprocess", ("many",), preprocess, ("out/*.csv", "out/volumes/*/*", "out/masks/*/*")
)
REPORT = Action(
    "report",
    ("results",),
    report,
    ("results/run/report.html", "results/run/tables/*", "results/run/figures/*"),
)
PREDICT = Action("predict", ("model", "many"), predict, ("out/*.csv", "out/pages/*"))
# The quickest first: it stands for all in the quick part.
ACTIONS = (PREPROCESS, STUDY, REPORT, PREDICT)


@dataclass(frozen=True)
class Whole:
    """What an uninterrupted run of an action comes to.

    Attributes:
      written: Digest of every output.
      given: Bytes of the inputs, in whole pages.
      used: Bytes at the end.
      seconds: How long it takes with compiled programs at hand.
    """

    written: dict[str, str]
    given: int
    used: int
    seconds: float


@functools.cache
def whole(action: Action, base: Path) -> Whole:
    """Run an action undisturbed, once; its compiled programs are kept for the others."""
    from tests.abuse.workers import in_child

    with tempfile.TemporaryDirectory(prefix="abuse-whole-") as top:
        for number in range(2):  # the second has compiled programs, as what is disturbed has
            folder = action.prepare(base, Path(top) / f"{number}")
            given = size(folder)
            outcome = in_child(action.command(folder))
            if outcome.state != "done":
                raise SystemExit(f"{action.name}: undisturbed: {outcome.state}: {outcome.said}")
            if action is not STUDY or (base / "xla").exists():
                break
            shutil.copytree(folder / "stages" / "xla", base / "xla")
        found = action.written(folder)
        if not found:
            raise SystemExit(f"{action.name}: writes none of {action.outputs}")
        return Whole(found, given, size(folder), outcome.seconds)


def size(folder: Path) -> int:
    """Bytes of whole pages, as a tmpfs counts them."""
    found = (p.stat().st_size for p in folder.rglob("*") if p.is_file())
    return sum(-(-length // PAGE) * PAGE for length in found)
