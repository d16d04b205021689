"""Records what made the results of a study, in ``provenance.json``."""

import os
import platform
import subprocess
import sys
from collections import Counter
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from etils import epath

import mri_jax
from mri_jax import files
from mri_jax.models import choice
from mri_jax.planning.catalogue import Catalogue
from mri_jax.planning.plan import Plan
from mri_jax.runs import results
from mri_jax.runs.provenance import Preprocessing, Provenance, write
from mri_jax.study.computing import Computing
from mri_jax.study.feeds import Volumes
from mri_jax.volumes.store import VolumeStore

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "scipy")


def write_provenance(
    workdir: epath.Path, plan: Plan, volumes: Volumes, computing: Computing
) -> None:
    """Writes ``provenance.json`` of a study that is about to run.

    Args:
      workdir: The results folder.
      plan: The plan.
      volumes: The scans.
      computing: By what it is computed.
    """
    catalogue, store, forms = volumes.catalogue, volumes.store, computing.forms
    scans = catalogue.frame[["subject_id", "session_id", "identity"]].to_numpy().tolist()
    place = results.written_path("store", store.path, workdir)
    made = Provenance(
        simulated=catalogue.simulated,
        mri_jax=mri_jax.__version__,
        git_commit=commit_of(Path(mri_jax.__file__).resolve().parent),
        python=platform.python_version(),
        platform=platform.platform(),
        versions=versions(),
        devices=computing.devices,
        forms=choice.name(forms),
        kernels=computing.kernels,
        choices=forms if isinstance(forms, tuple) else (),
        beside=tuple(computing.beside.by_program.values()),
        command=tuple(sys.argv),
        near_duplicates=asdict(catalogue.searched) if catalogue.searched else None,
        despite_exclusion=len(catalogue.excluded_among(plan.rows())),
        store=place["store"],
        store_from_run=place.get("store_from_run"),
        store_fingerprint=store.info.fingerprint,
        preprocessing=_preprocessing(catalogue, store),
        data_fingerprint=files.fingerprint(scans),
    )
    write(workdir, made)


def _preprocessing(catalogue: Catalogue, store: VolumeStore) -> Preprocessing:
    """Returns the store's settings, and how many scans each step was used for."""
    index = store.index.loc[list(catalogue.keys)]
    steps = [name for name in ("inhomogeneity", "brain", "registration") if name in index.columns]
    return Preprocessing(
        shape=store.info.grid.shape,
        spacing=store.info.grid.spacing,
        dtype=store.info.dtype,
        settings=dict(store.info.settings),
        # "none (detected)" is "none": what was done counts, not how it was found out.
        scans={
            name: dict(Counter(str(value).partition(" ")[0] for value in index[name]))
            for name in steps
        },
    )


def versions() -> dict[str, str | None]:
    """Returns the versions of packages that determine numbers; None for one that is absent."""
    return {name: _version(name) for name in _PACKAGES}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def commit_of(package: Path) -> str | None:
    """Returns the commit of the git checkout that a package is run from, ``-dirty`` with changes.

    Args:
      package: The package's folder, at the top of its checkout.

    Returns:
      None where it is not in a checkout of its own: an installed package often lies inside the
      checkout of something else.
    """
    own = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(package.parent), *arguments]
        done = subprocess.run(
            command, env=own, capture_output=True, timeout=10, check=True, encoding="utf-8"
        )
        return done.stdout.strip()

    try:
        if not Path(git("rev-parse", "--show-toplevel")).samefile(package.parent):
            return None
        git("ls-files", "--error-unmatch", f"{package.name}/__init__.py")
        return git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*") or None
    except (OSError, subprocess.SubprocessError):
        return None
