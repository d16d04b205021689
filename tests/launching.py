"""The real launcher as a process, on a cohort of tiny volumes."""

import atexit
import functools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.compiling import XLA_FLAGS
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


def environment(**more: str) -> dict[str, str]:
    """Variables of a command: what it computes is compared with another command's alone."""
    return {**os.environ, "XLA_FLAGS": XLA_FLAGS, **more}


def launch(
    cohorts: tuple[Path, Path], workdir: Path, *more: str, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run the command as a process, with more variables of the environment."""
    return subprocess.run(
        command(cohorts, workdir, *more),
        capture_output=True, timeout=300, cwd=ROOT, encoding="utf-8", env=environment(**variables),
    )  # fmt: skip


# Imports what a study needs once, and runs each command of stdin in a copy of the process, which
# ends without tearing down what it shares.
_SERVER = """
import gc, json, os, sys
import launch, mri_jax.evaluation.linear, mri_jax.study.dry_run, mri_jax.study.run
from absl import app
gc.freeze()
for line in sys.stdin:
    if os.fork() == 0:
        argv, environment, *streams = json.loads(line)
        for number, path in enumerate(streams, start=1):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
        os.environ.update(environment)
        sys.argv = argv
        try:
            app.run(launch.main, flags_parser=launch.parse_flags)
        except SystemExit as ended:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(ended.code or 0)
    print(os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
"""


@functools.cache
def _server() -> subprocess.Popen[str]:
    server = subprocess.Popen(
        [sys.executable, "-c", _SERVER], cwd=ROOT, encoding="utf-8", env=environment(),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip

    def stop() -> None:
        server.communicate(timeout=60)

    atexit.register(stop)
    return server


def launch_copy(
    cohorts: tuple[Path, Path], workdir: Path, *more: str, **variables: str
) -> subprocess.CompletedProcess[str]:
    """As `launch`, in a copy of a process that has imported JAX already.

    ``variables`` cannot set what is read before or by that import.
    """
    asked, server = command(cohorts, workdir, *more), _server()
    with tempfile.TemporaryDirectory() as folder:
        out, err = (Path(folder) / name for name in ("out", "err"))
        line = json.dumps([asked[1:], variables, str(out), str(err)])
        print(line, file=server.stdin, flush=True)
        code = int(server.stdout.readline())
        said = [path.read_text(encoding="utf-8") for path in (out, err)]
    return subprocess.CompletedProcess(asked, code, *said)


def workers_of(process: subprocess.Popen[str]) -> list[int]:
    """Returns the processes that a launcher has started to work."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            _, _, rest = path.read_text(encoding="utf-8").rpartition(")")
            spawned = b"spawn_main" in (path.parent / "cmdline").read_bytes()
        except OSError:  # it has ended
            continue
        if spawned and int(rest.split()[1]) == process.pid:
            found.append(int(path.parent.name))
    return sorted(found)
