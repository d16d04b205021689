"""One person or one scan on both sides: every attempt must stop the study with both names."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.abuse import made
from tests.abuse.workers import Case
from tests.leak_attempts import ATTEMPTS, make_attempt, make_base


def attempts(base: Path, work: Path, step: int) -> Iterator[Case]:
    """Every ``step``-th attempt as a case."""
    if not (base / "leaks").exists():
        make_base(base / "leaks.new").rename(base / "leaks")
    work.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(list(ATTEMPTS)[::step]):
        folder = work / f"leak-{number}"
        yield Case(name, lambda name=name, folder=folder: _try(base, folder, name), "leak attempts")


def _try(base: Path, folder: Path, name: str) -> Any:
    from mri_jax.settings.study import Study
    from mri_jax.study.prepare import planned
    from mri_jax.study.stages import StageFolders

    try:
        make_attempt(base / "leaks", folder, name)
        planned(Study.parse(made.study_config(folder)), StageFolders(folder / "stages"))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def named(name: str, said: str) -> bool:
    """Whether a refusal names both ids of an attempt."""
    return all(own in said or ascii(own)[1:-1] in said for own in ATTEMPTS[name].ids)
