"""Choices of forms, measured once and kept beside the stages.

Each kind of layer has a file under the stages folder, so that a study that is resumed, and every
other one that shares the folder, computes as the first did.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial

import jax
from etils import epath

from mri_jax import files, locks, sealed
from mri_jax.errors import UserError
from mri_jax.models import measuring
from mri_jax.models.chosen import Choice, LayerKind
from mri_jax.progress import Progress
from mri_jax.training import devices
from mri_jax.typed import build

FOLDER = "forms"
# Rises with another set of forms, and when they are measured otherwise.
_VERSION = 1
# Layers that are compiled at once: each takes some hundred MB of the host.
_SIDE_BY_SIDE = 8


class Kept:
    """Choices in a folder, a file each, made where they are absent or damaged.

    Args:
      folder: The folder.
      device: What measures.
      say: Where remarks go.
    """

    def __init__(self, folder: epath.Path, device: jax.Device, say: Callable[[str], None]):
        self._folder, self._device, self._say = folder, device, say
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
        with locks.lock_of(lock).acquire(timeout=-1) as held:
            try:
                self._measure(found, layers, label, held.require)
            finally:
                locks.forget([lock], made)
        return found

    def _measure(
        self,
        found: dict[LayerKind, Choice],
        layers: Sequence[LayerKind],
        label: str,
        require: Callable[[], None],
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
                require()
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
