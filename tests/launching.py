"""The real launcher as a process, on a cohort of tiny volumes."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.conftest import ROOT

FIELDS = {
    "model.preset": "",
    "model.repetitions": "(1,1)",
    "model.filters": "(4,8)",
    "model.fc": "(8,)",
    "model.dropout": "(0.5,0.)",
    "train.folds": 3,
    "train.learning_rate": 1e-3,
    "train.min_epochs": 4,
    "train.min_steps": 0,
    "train.patience_steps": 0,
    "train.max_epochs": 6,
    "finetune.epochs": 3,
    "finetune.inner_folds": 0,
    "finetune.statistics": "('keep',)",
    "baselines.voxels": False,
    "save_seconds": 0.0,
}


def command(cohorts: tuple[Path, Path], workdir: Path, *more: str) -> list[str]:
    fields = {"data.cohort": cohorts[0], "data.store": cohorts[1], **FIELDS}
    return [
        sys.executable,
        str(ROOT / "launch.py"),
        f"--config={ROOT}/configs/finetune_high.py",
        f"--workdir={workdir}",
        "--noreport",
        *(f"--config.{name}={value}" for name, value in fields.items()),
        *more,
    ]


def launch(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments),
        capture_output=True,
        timeout=300,
        cwd=ROOT,
        **options,
        encoding="utf-8",
    )


# Imports what a study needs once, and runs each command of stdin in a copy of the process.
_SERVER = """
import json, os, sys
import launch, mri_jax.study.run
from absl import app
for line in sys.stdin:
    if os.fork() == 0:
        argv, said = json.loads(line)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT), 2)
        sys.argv = argv
        app.run(launch.main, flags_parser=launch.parse_flags)
    print(os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
"""


def launch_each(
    cohorts: tuple[Path, Path], folder: Path, arguments: Sequence[Sequence[str]]
) -> list[tuple[int, str]]:
    """Exit code and stderr of a command for each; they are over before they compute."""
    commands = [command(cohorts, folder / "run", *more)[1:] for more in arguments]
    said = [str(folder / f"{i}.txt") for i in range(len(commands))]
    lines = [json.dumps(each) for each in zip(commands, said, strict=True)]
    done = subprocess.run(
        [sys.executable, "-c", _SERVER], input="\n".join(lines), cwd=ROOT,
        capture_output=True, encoding="utf-8", timeout=300, check=True,
    )  # fmt: skip
    codes = map(int, done.stdout.split())
    return [
        (code, Path(path).read_text(encoding="utf-8"))
        for code, path in zip(codes, said, strict=True)
    ]
