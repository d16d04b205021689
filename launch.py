"""Run a study: ``python launch.py --config=configs/finetune_high.py``.

The config's preset follows a colon (``configs/depth.py:dev``), its fields, which docs/config.md
lists, are overridden by ``--config.model.width=2``. Exit codes: 0 done; 2 a mistake that the user
can mend, in one line; 75 interrupted by SIGTERM or Ctrl-C with everything saved: the same command
goes on.
"""

import sys

from mri_jax.interruption import CODE, Interrupted, Interruption, hold_signals

if __name__ == "__main__":
    hold_signals()  # before anything else is imported, so that they wait for their answer

import os
import re
from dataclasses import replace
from typing import TYPE_CHECKING

from mri_jax import allocator, supervision
from mri_jax.models.choice import ASKED

if __name__ == "__main__":
    if not allocator.kept_stock(sys.argv):
        allocator.tune()
    supervision.supervise(sys.argv)
    _INTERRUPTION = Interruption().install()
else:
    _INTERRUPTION = Interruption()

from absl import app, flags, logging
from ml_collections import config_flags

if TYPE_CHECKING:
    from collections.abc import Callable

    from etils import epath

    from mri_jax.cluster.address import Cluster
    from mri_jax.settings.study import Study

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "The study, FILE[:PRESET]; docs/config.md lists its fields.", lock_config=True
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Results; by default runs/NAME-PRESET.")
_STAGES = flags.DEFINE_string("stages", None, "Finished stages; by default beside the workdir.")
_PLAN = flags.DEFINE_bool("plan", False, "Print stages, time and memory expected; run nothing.")
_REPORT = flags.DEFINE_bool("report", True, "Write the report at the end.")
_NANS = flags.DEFINE_bool("debug_nans", False, "Stop at the first NaN, with its place.")
_PROFILE = flags.DEFINE_string("profile", None, "Write a trace for TensorBoard to this folder.")
_CPU_FOLDS = flags.DEFINE_integer(
    "cpu_folds", 1, "Folds trained side by side on a CPU, each with memory of its own."
)
_PER_FOLD = flags.DEFINE_integer(
    "devices_per_fold", 1, "Devices that train a fold together, each with a part of its batches."
)
_ALLOCATOR = flags.DEFINE_enum(
    "allocator", "tuned", ["tuned", "stock"], "tuned: large pages for this process (Linux, CPU)."
)
_FORMS = flags.DEFINE_enum(
    "forms", None, ASKED,
    "How conv layers are computed; by default by native kernels on a CPU with a C++ compiler, by "
    "what is measured to be the fastest on a GPU or TPU.",
)  # fmt: skip
_CLUSTER = flags.DEFINE_string(
    "cluster", None,
    "Dask workers that build the stages: the address or file of a scheduler, local:N, slurm:N or "
    "another queue (docs/scaling.md).",
)  # fmt: skip
_OPEN = flags.DEFINE_bool(
    "open_scheduler", False, "Use a scheduler without TLS, with whose help anyone can run code."
)


def parse_flags(argv: list[str]) -> list[str]:
    """Parse the command line; a mistake is one line and exit code 2."""
    # The shell leaves ~ alone after an equals sign.
    argv = [re.sub(r"(?<=^--config=)~[^:]*", lambda m: os.path.expanduser(m[0]), a) for a in argv]
    try:
        rest = flags.FLAGS(argv)
        if flags.FLAGS["config"].present:
            # A config that could not be loaded complains only when it is read.
            config = _CONFIG.value.to_dict()
            from mri_jax.settings import overrides

            if wrong := overrides.wrong(argv, config):
                raise ValueError(wrong)
        return rest
    except SystemExit as ended:
        # absl ends its help as a failure.
        sys.exit(0 if {"--help", "-h", "--helpfull", "--helpshort"} & set(argv) else ended.code)
    except Exception as error:
        # A config file is a program, and may end with any error.
        from mri_jax.settings import overrides

        print(f"error: {overrides.mistake(argv, error, list(flags.FLAGS))}", file=sys.stderr)
        sys.exit(2)


def main(argv: list[str]) -> int:
    """Flags in, one call to the study, exit code out."""
    from mri_jax.progress import print_in_any_locale

    print_in_any_locale()
    code = _answered(argv)
    if code and supervision.several(os.environ):
        # JAX would wait for the other processes, which wait for this one.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def _answered(argv: list[str]) -> int:
    """Returns the exit code, a mistake told in one line."""
    from mri_jax import files
    from mri_jax.errors import UserError

    try:
        return _main(argv)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        if not files.is_full(error):
            raise
        print(f"error: {error.filename or 'workdir'}: the disk is full", file=sys.stderr)
        return 2
    except RuntimeError as error:
        from mri_jax import device_faults
        from mri_jax.training import hosts

        if hosts.lost(error):
            print(supervision.LINE, file=sys.stderr)
            return CODE
        line = device_faults.explained(error)
        if not line:
            raise
        print(f"error: {line}", file=sys.stderr)
        return 2


def _main(argv: list[str]) -> int:
    from mri_jax import files
    from mri_jax.errors import UserError
    from mri_jax.settings.study import Study

    if len(argv) > 1:
        raise UserError(f"{argv[1]!r} is not a flag; fields of the config are --config.FIELD=VALUE")
    if _CONFIG.value is None:
        raise UserError("--config: is missing, e.g. --config=configs/finetune_high.py")
    if _PLAN.value and _NANS.value:
        raise UserError("--debug_nans: looks for NaNs in a study that runs; leave it out of --plan")
    if not flags.FLAGS["verbosity"].present:
        # Orbax tells of every file at INFO, and at ERROR of what it raises as well.
        logging.set_verbosity(logging.FATAL)

    # What is refused need not wait for the packages that run it.
    study = Study.parse(_CONFIG.value.to_dict())
    cluster = _cluster()
    run, print_plan = _jobs(study)
    from mri_jax.study.running import start
    from mri_jax.training import hosts
    from mri_jax.training.devices import profiled

    workdir = _folder("workdir", _WORKDIR.value or f"runs/{study.folder}", cluster is not None)
    stages = _folder("stages", _STAGES.value or workdir.parent / "stages", cluster is not None)
    trace = _PROFILE.value and files.expanded(_PROFILE.value)
    try:
        if cluster is not None:
            asked = _INTERRUPTION.asked
            from mri_jax.study.on_cluster import opened

            with (
                _INTERRUPTION.polled(),
                opened(
                    cluster, study, workdir, stages, _FORMS.value, asked, _REPORT.value
                ) as there,
            ):
                if study.search.trials:
                    from mri_jax.search.on_cluster import run as run_search

                    run_search(study, workdir, stages, there)
                else:
                    run(study, workdir, stages, there)
            return 0
        if supervision.several(os.environ) and not _PLAN.value:
            _join(study)
        started = start(study, stages, _NANS.value, _CPU_FOLDS.value, _FORMS.value, _PER_FOLD.value)
        how = replace(started, interrupted=_INTERRUPTION.asked, report=_REPORT.value)
        if _PLAN.value:
            print_plan(study, workdir, stages, how)
            return 0
        with _INTERRUPTION.polled(), profiled(trace), hosts.one_speaks():
            run(study, workdir, stages, how)
    except Interrupted:
        print("interrupted; everything is saved, the same command goes on", file=sys.stderr)
        return CODE
    return 0


def _cluster() -> "Cluster | None":
    """Returns the workers that are asked for; refuses what is meant for this process alone."""
    from mri_jax.cluster.address import Cluster
    from mri_jax.errors import UserError

    if _CLUSTER.value is None:
        if _OPEN.value:
            raise UserError("--open_scheduler: says which --cluster may be used; leave it out")
        return None
    for flag, asked in (
        ("--plan", _PLAN.value),
        ("--debug_nans", _NANS.value),
        ("--profile", _PROFILE.value is not None),
        ("--cpu_folds", _CPU_FOLDS.value != 1),
        ("--devices_per_fold", _PER_FOLD.value != 1),
    ):
        if asked:
            raise UserError(
                f"{flag}: is for computing in this process; it and --cluster exclude each other"
            )
    if supervision.several(os.environ):
        raise UserError(
            "--cluster: one process hands out work to all workers, and this is one of several (by "
            "srun, mpirun or JAX_COORDINATOR_ADDRESS); start it once"
        )
    return Cluster.parse(_CLUSTER.value, _OPEN.value)


def _join(study: "Study") -> None:
    """Find the other processes of this study."""
    from mri_jax.errors import UserError
    from mri_jax.training import hosts

    if study.search.trials:
        raise UserError(
            "search.trials: processes share a search by its journal: start them apart "
            "(docs/architecture_search.md), not as one program"
        )
    if _NANS.value:
        raise UserError("--debug_nans: looks for NaNs in one process; start it alone")
    hosts.join()


def _jobs(study: "Study") -> "tuple[Callable[..., None], Callable[..., None]]":
    """Returns what runs a study, and what prints what it would take."""
    if not study.search.trials:
        from mri_jax.study.dry_run import print_plan
        from mri_jax.study.run import run

        return run, print_plan
    import importlib.util

    from mri_jax.errors import UserError
    from mri_jax.settings.study import named

    if importlib.util.find_spec("optuna") is None:
        raise UserError(
            f"{named('search.trials')}: a search needs Optuna, which is not installed "
            "(pip install -e '.[search]')"
        )
    from mri_jax.search.dry_run import print_plan as print_plan_of_search
    from mri_jax.search.run import run as run_search

    return run_search, print_plan_of_search


def _folder(flag: str, path: os.PathLike[str] | str, absolute: bool) -> "epath.Path":
    """A folder, on this machine or in a bucket, which needs a package of its own.

    Workers may have been started in another folder, for which paths must be absolute.
    """
    from etils import epath

    from mri_jax import files
    from mri_jax.errors import UserError

    folder = epath.Path(files.expanded(path))
    try:
        folder.exists()
    except ImportError as error:
        raise UserError(f"--{flag}: {error} (pip install -e '.[tpu]')") from None
    return files.absolute(folder) if absolute else folder


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
