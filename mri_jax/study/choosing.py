"""Which forms compute the conv layers of a study, where they are measured."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.metadata import version
from itertools import groupby

from mri_jax.models import CNNSpec, choice, chosen
from mri_jax.models.chosen import Choice, LayerKind
from mri_jax.planning.plan import EvaluateStage, Plan, TrainStage
from mri_jax.study.kept_choices import FOLDER
from mri_jax.study.kept_forms import Kept
from mri_jax.study.stages import StageFolders
from mri_jax.training.job import FitSettings
from mri_jax.training.wave import Wave


def with_forms(
    wave: Wave,
    plan: Plan,
    size: tuple[int, int, int],
    folders: StageFolders,
    say: Callable[[str], None] = print,
) -> Wave:
    """Returns the devices, where forms are to be measured with one for each layer of a plan.

    What was chosen before is read; what stages that are not finished need beside is measured and
    kept. A line a network says what was chosen.

    Args:
      wave: The devices; those with forms of another choice are returned as they are.
      plan: The plan.
      size: (X, Y, Z) of a volume.
      folders: Folders of stages.
      say: Where the lines go.

    Raises:
      UserError: A layer cannot be computed by any form.
    """
    if wave.forms != choice.MEASURE:
        return wave
    kept = Kept(folders.root / FOLDER, wave.local[0], say)
    found: dict[LayerKind, Choice] = {}
    for (spec, batch), (label, pending) in _networks(plan, folders).items():
        layers = layers_on(wave, spec, size, batch)
        new = list(dict.fromkeys(layer for layer in layers if layer not in found))
        found |= kept.of(new, label) if pending else kept.there(new)
        if all(layer in found for layer in layers):
            say(_described(label, [found[layer] for layer in layers]))
    return replace(wave, forms=tuple(found.values()))


def recorded(wave: Wave, fit: FitSettings, size: tuple[int, int, int]) -> str:
    """Returns by what forms the layers of a network are computed, as saved states note it."""
    if isinstance(wave.forms, tuple):
        layers = layers_on(wave, fit.step.spec, size, fit.seen_at_once)
        return chosen.recorded(wave.forms, layers)
    return wave.computed


def layers_on(
    wave: Wave, spec: CNNSpec, size: tuple[int, int, int], batch: int
) -> tuple[LayerKind, ...]:
    """Returns the conv layers of a network on a device of a wave, in their order.

    Args:
      wave: The devices.
      spec: The network.
      size: (X, Y, Z) of a volume.
      batch: Volumes that the network sees at once, on all devices of a fold.
    """
    kind = wave.devices[0].device_kind
    return chosen.layers_of(spec, size, batch // wave.split, kind, version("jaxlib"))


def _networks(plan: Plan, folders: StageFolders) -> dict[tuple[CNNSpec, int], tuple[str, bool]]:
    """Returns for each network and batch what it is called, and whether it is still computed."""
    found: dict[tuple[CNNSpec, int], tuple[str, bool]] = {}
    for stage in plan.stages():
        if isinstance(stage, TrainStage | EvaluateStage):
            training = stage if isinstance(stage, TrainStage) else stage.network
            about = training.fit.step.spec, training.fit.seen_at_once
            label, pending = found.get(about, (training.label, False))
            found[about] = label, pending or not folders.finished(stage)
    return found


def _described(label: str, choices: Sequence[Choice]) -> str:
    """Returns a line on the form of each layer, and the milliseconds of all of them together."""
    spans, first = [], 1
    for form, group in groupby(each.form for each in choices):
        last = first + len(list(group)) - 1
        spans.append(f"conv{first}{f'-{last}' if last > first else ''} {form}")
        first = last + 1
    throughout = {
        form: sum(each.seconds[form] for each in choices)
        for form in choices[0].seconds
        if all(form in each.seconds for each in choices)
    }
    chosen = sum(each.seconds[each.form] for each in choices)
    others = ", ".join(
        f"{form} {1e3 * seconds:.3g}" for form, seconds in throughout.items() if seconds > chosen
    )
    return (
        f"conv layers of {label}, measured on {choices[0].layer.device}: {', '.join(spans)}; "
        f"{1e3 * chosen:.3g} ms a step" + (f" ({others})" if others else "")
    )
