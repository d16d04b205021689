"""How many networks a device trains side by side, where conv layers' forms are measured, too.

One network may leave a card idle where its maps are small, and several take more memory. So a step
of one is timed, of two, of four, up to as many as there are for a device, as long as that gains
something.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace

from mri_jax import files
from mri_jax.device_faults import reason
from mri_jax.errors import UserError
from mri_jax.planning.plan import STATISTICS, Plan, TrainStage
from mri_jax.progress import Progress
from mri_jax.runs.provenance import Beside
from mri_jax.study.choosing import layers_on
from mri_jax.study.computing import SideBySide
from mri_jax.study.execute import label_of
from mri_jax.study.kept_choices import FOLDER, KeptChoices
from mri_jax.study.stages import StageFolders
from mri_jax.training import cost, hosts
from mri_jax.training.devices import device_budget
from mri_jax.training.job import FitSettings
from mri_jax.training.wave import Wave

# Rises when it is measured otherwise.
_VERSION = 1
# Networks whose conv layers take fewer seconds in all are trained one by one: a measurement, which
# compiles a program or two, takes as long as it could save.
LEAST_SECONDS = 120.0
# A network's share of a step must fall by so much for still more of them to be tried.
_GAIN = 0.03


def measured(
    wave: Wave,
    plan: Plan,
    size: tuple[int, int, int],
    folders: StageFolders,
    say: Callable[[str], None] = print,
) -> SideBySide:
    """Returns how many networks of a plan train side by side: what was kept, or is measured now.

    One by one train networks whose forms were not measured, those of split batches and of several
    processes, and those that take less time than a measurement.

    Args:
      wave: The devices, with forms from `mri_jax.study.choosing.with_forms`.
      plan: The plan.
      size: (X, Y, Z) of a volume.
      folders: Folders of stages.
      say: Where a line a program goes.
    """
    if not isinstance(wave.forms, tuple) or wave.split > 1 or hosts.several():
        return SideBySide()
    found, kept = dict[FitSettings, Beside](), KeptChoices(folders.root / FOLDER, say)
    for program, stages in _programs(plan).items():
        number = -(-len(stages) // len(wave.devices))
        if number == 1 or _seconds(stages, wave, size) < LEAST_SECONDS:
            continue
        name = f"beside-{_name(program, number, wave, size)[:16]}.json"
        told = "how many networks train side by side is measured again"
        made = kept.read(name, Beside, told)
        if made is None and not all(map(folders.finished, stages)):
            with kept.alone() as require:
                made = kept.read(name, Beside, told)  # another process may have made it by now
                if made is None:
                    made = _compared(label_of(stages), program, number, wave, size)
                    require()
                    kept.write(name, made)
        if made is not None:
            say(_described(made))
            found[program] = made
    return SideBySide(found)


def _programs(plan: Plan) -> dict[FitSettings, list[TrainStage]]:
    """Returns the networks of each program, also finished ones: the choice stays when resumed."""
    found: dict[FitSettings, list[TrainStage]] = {}
    for stage in plan.stages():
        if isinstance(stage, TrainStage) and stage.kind != STATISTICS:
            found.setdefault(stage.fit.program, []).append(stage)
    return found


def _seconds(stages: Sequence[TrainStage], wave: Wave, size: tuple[int, int, int]) -> float:
    """Returns what the conv layers of networks take at most, on one device, as was measured."""
    assert isinstance(wave.forms, tuple)
    of = {choice.layer: choice.seconds[choice.form] for choice in wave.forms}
    fit = stages[0].fit
    layers = layers_on(wave, fit.step.spec, size, fit.seen_at_once)
    # Nothing was measured for networks that are finished.
    step = fit.step.accumulate * sum(of.get(layer, 0.0) for layer in layers)
    return step * sum(
        stage.fit.stopping.max_epochs * ((len(stage.train) or len(stage.unlabelled)) // fit.batch)
        for stage in stages
    )


def _name(program: FitSettings, number: int, wave: Wave, size: tuple[int, int, int]) -> str:
    layers = layers_on(wave, program.step.spec, size, program.seen_at_once)
    assert isinstance(wave.forms, tuple)
    forms = [[asdict(c.layer), c.form] for c in wave.forms if c.layer in layers]
    return files.fingerprint([_VERSION, repr(program), number, forms])


def _compared(
    label: str, program: FitSettings, number: int, wave: Wave, size: tuple[int, int, int]
) -> Beside:
    """Times a step of one network, of two, of four and so on, on the first device."""
    alone, room = replace(wave, devices=wave.devices[:1]), device_budget(wave)
    seconds: dict[str, float] = {}
    refused: dict[str, str] = {}
    count, share = 1, float("inf")
    with Progress(number, "network", f"measuring {label} side by side", compiles=True) as progress:
        while True:
            try:
                step = cost.of_step(program, size, alone.of(count), room)
            except Exception as error:  # compilers and drivers raise many kinds
                told = str(error) if isinstance(error, UserError) else reason(error)
                refused[str(count)] = told
                break
            seconds[str(count)] = step.again
            progress.advance(0, beside=count, ms=f"{1e3 * step.again:.3g}")
            gained, share = step.again / count < (1 - _GAIN) * share, step.again / count
            if not gained or count == number:
                break
            count = min(2 * count, number)

    def whole(beside: str) -> float:
        return -(-number // int(beside)) * seconds[beside]

    return Beside(label, number, int(min(seconds, key=whole, default="1")), seconds, refused)


def _described(found: Beside) -> str:
    """Returns a line on how many train side by side, and the milliseconds of what was tried."""
    how = "one by one" if found.count == 1 else f"{found.count} side by side"
    times = [f"{n}: {1e3 * s:.3g} ms" for n, s in found.seconds.items()]
    times += [f"{n}: {why}" for n, why in found.refused.items()]
    return f"{found.networks} on each device: {how} (a step of {', '.join(times)})"
