"""How a study runs on this machine."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

from etils import epath

from mri_jax.models import choice
from mri_jax.planning.plan import Plan
from mri_jax.settings.study import Study
from mri_jax.study import beside, choosing
from mri_jax.study.computing import Computing
from mri_jax.study.execute import Executor
from mri_jax.study.feeds import Feeds
from mri_jax.study.scans import open_store
from mri_jax.study.stages import StageFolders
from mri_jax.study.work import Work
from mri_jax.training import devices, hosts
from mri_jax.training.wave import Wave
from mri_jax.volumes.store import VolumeStore


@dataclass(frozen=True)
class Running:
    """How a study runs here; determines nothing of what it finds.

    Attributes:
      wave: What to train on; by default every device trains a fold.
      store: The study's store, where it is open already.
      interrupted: Whether to save and stop; asked often.
      say: Where the summary goes.
      report: Whether to write figures, tables and ``report.html`` at the end.
    """

    wave: Wave | None = None
    store: VolumeStore | None = None
    interrupted: Callable[[], bool] = lambda: False
    say: Callable[[str], None] = print
    report: bool = True

    @cached_property
    def devices(self) -> Wave:
        """What to train on."""
        return self.wave or devices.one_fold_each()

    def wave_of(self, plan: Plan, size: tuple[int, int, int], folders: StageFolders) -> Wave:
        """Returns the devices with the forms of a plan's layers; see `choosing.with_forms`."""
        return choosing.with_forms(self.devices, plan, size, folders, self.say)

    @property
    def on_host(self) -> bool:
        """Returns whether CPUs compute."""
        return self.devices.on_host

    @property
    def split(self) -> int:
        """Returns how many devices train a fold together."""
        return self.devices.split

    @property
    def said(self) -> str:
        """A line on where and how is computed."""
        return devices.described(self.devices, self.memory)

    @property
    def memory(self) -> int:
        """Bytes there are for a fold."""
        return devices.memory_of(self.devices)

    def computing(self, work: Work) -> Computing:
        """Returns by what a study is computed; what is to be measured is measured."""
        size = work.volumes.shape[:3]
        wave = self.wave_of(work.plan, size, work.folders)
        return Computing(
            devices=tuple(f"{d.platform}:{d.device_kind}" for d in wave.devices),
            forms=wave.forms,
            kernels=choice.kernel_library(choice.resolved(wave.forms)),
            beside=beside.measured(wave, work.plan, size, work.folders, self.say),
        )

    def build(self, work: Work, computing: Computing) -> None:
        """Builds all stages of a study that are not finished.

        Raises:
          Interrupted: Asked to stop; everything is saved.
        """
        wave = replace(self.devices, forms=computing.forms)
        Executor(
            folders=work.folders,
            volumes=work.volumes,
            feeds=Feeds(work.volumes, work.study.data, wave),
            wave=wave,
            beside=computing.beside,
            interrupted=self.interrupted,
            on_epoch=work.on_epoch,
            save_seconds=work.study.save_seconds,
            say=self.say,
        ).run(work.plan.stages())


def start(
    study: Study,
    stages: epath.Path,
    debug_nans: bool = False,
    cpu_folds: int = 1,
    forms: str | None = None,
    devices_per_fold: int = 1,
) -> Running:
    """Opens the store of a study and starts the devices; see `mri_jax.training.devices.start`.

    Args:
      study: What is asked.
      stages: The folder of stages, under which compiled programs are kept.
      debug_nans: Whether to stop at the first NaN.
      cpu_folds: How many folds a CPU trains at once.
      forms: How conv layers are computed; None lets the machine decide.
      devices_per_fold: How many devices train a fold together.
    """
    store = open_store(study)
    wave = devices.start(stages, debug_nans, cpu_folds, forms, devices_per_fold)
    # Where several processes compute one study, the first speaks for all.
    return Running(wave, store, say=print if hosts.first() else _say_nothing)


def _say_nothing(line: str) -> None:
    """Says nothing."""
