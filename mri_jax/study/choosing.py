"""Which forms compute the conv layers of a study: measured once, kept beside the stages.

Each kind of layer has a file under the stages folder, so that a study that is resumed, and every
other one that shares the folder, computes as the first did.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from functools import partial
from importlib.metadata import version
from itertools import groupby

from etils import epath

from mri_jax import files, locks, sealed
from mri_jax.errors import UserError
from mri_jax.models import CNNSpec, choice, chosen, measuring
from mri_jax.models.chosen import Choice, LayerKind
from mri_jax.planning.plan import EvaluateStage, Plan, TrainStage
from mri_jax.progress import Progress
from mri_jax.study.stages import StageFolders
from mri_jax.training import devices
from mri_jax.training.folds import Wave
from mri_jax.training.loop import FitSettings
from mri_jax.typed import build

FOLDER = "forms"
# Rises with another set of forms, and when they are measured otherwise.
_VERSION = 1
# Layers that are compiled at once: each takes some hundred MB of the host.
_SIDE_BY_SIDE = 8


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
    kept = Kept(folders.root / FOLDER, wave, say)
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
        return chosen.recorded(wave.forms, layers_on(wave, fit.step.spec, size, fit.batch))
    return wave.computed


def layers_on(
    wave: Wave, spec: CNNSpec, size: tuple[int, int, int], batch: int
) -> tuple[LayerKind, ...]:
    """Returns the conv layers of a network on the devices of a wave, in their order."""
    return chosen.layers_of(spec, size, batch, wave.devices[0].device_kind, version("jaxlib"))


def _networks(plan: Plan, folders: StageFolders) -> dict[tuple[CNNSpec, int], tuple[str, bool]]:
    """Returns for each network and batch what it is called, and whether it is still computed."""
    found: dict[tuple[CNNSpec, int], tuple[str, bool]] = {}
    for stage in plan.stages():
        if isinstance(stage, TrainStage | EvaluateStage):
            training = stage if isinstance(stage, TrainStage) else stage.network
            about = training.fit.step.spec, training.fit.batch
            label, pending = found.get(about, (training.label, False))
            found[about] = label, pending or not folders.finished(stage)
    return found


class Kept:
    """Choices in a folder, a file each, made where they are absent or damaged.

    Args:
      folder: The folder.
      wave: The devices, the first of which measures.
      say: Where remarks go.
    """

    def __init__(self, folder: epath.Path, wave: Wave, say: Callable[[str], None]):
        self._folder, self._device, self._say = folder, wave.devices[0], say
        self._damaged: set[epath.Path] = set()

    def there(self, layers: Sequence[LayerKind]) -> dict[LayerKind, Choice]:
        """Returns those that were made before."""
        read = {layer: self._read(layer) for layer in layers}
        return {layer: made for layer, made in read.items() if made is not None}

    def of(self, layers: Sequence[LayerKind], label: str) -> dict[LayerKind, Choice]:
        """Returns the choices for all layers of a network, measuring by one process at a time."""
        found = self.there(layers)
        if len(found) == len(layers):
            return found
        made, lock = locks.to_make(self._folder), self._folder / ".lock"
        with locks.lock_of(lock).acquire(timeout=-1):
            try:
                self._measure(found, layers, label)
            finally:
                locks.forget([lock], made)
        return found

    def _measure(
        self, found: dict[LayerKind, Choice], layers: Sequence[LayerKind], label: str
    ) -> None:
        """Adds the choices that are still absent; another process may have made some by now."""
        found |= self.there(layers)
        forms = {
            layer: measuring.candidates(layer, self._device.platform)
            for layer in layers
            if layer not in found
        }
        total, name = sum(map(len, forms.values())), f"measuring conv layers of {label}"
        with Progress(total, "form", name, compiles=True) as progress:
            # All are compiled before the first one is timed, for compiling takes the cores.
            with ThreadPoolExecutor(min(_SIDE_BY_SIDE, devices.usable_cores())) as threads:
                prepare = partial(measuring.prepared, device=self._device)
                prepared = list(threads.map(prepare, forms.keys(), forms.values()))
            for each in prepared:

                def tried(form: str, layer: LayerKind = each.layer) -> None:
                    progress.advance(layer=str(layer), form=form)

                found[each.layer] = measuring.measured(each, self._device, tried)
                self._write(found[each.layer])

    def _path(self, layer: LayerKind) -> epath.Path:
        name = files.fingerprint([_VERSION, asdict(layer)])
        return self._folder / f"{layer.channels}-{layer.filters}-{name[:16]}.json"

    def _read(self, layer: LayerKind) -> Choice | None:
        path = self._path(layer)
        if not path.exists():
            return None
        try:
            return build(Choice, sealed.read(path)["value"], str(path))
        except (UserError, KeyError) as error:
            if path not in self._damaged:
                self._say(f"{error}; the forms of this layer are measured again")
            self._damaged.add(path)
            return None

    def _write(self, made: Choice) -> None:
        sealed.write(self._path(made.layer), {"value": asdict(made)}, ())
        for form, why in made.refused.items():
            self._say(f"conv layer of {made.layer}: without form {form}: {why}")


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
