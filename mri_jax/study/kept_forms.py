"""The form of each kind of conv layer, measured once and kept beside the stages."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial

import jax
from etils import epath

from mri_jax import files
from mri_jax.models import measuring
from mri_jax.models.chosen import Choice, LayerKind
from mri_jax.progress import Progress
from mri_jax.study.kept_choices import KeptChoices
from mri_jax.training import devices

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
        self._choices, self._device, self._say = KeptChoices(folder, say), device, say

    def there(self, layers: Sequence[LayerKind]) -> dict[LayerKind, Choice]:
        """Returns those that were made before."""
        read = {layer: self._read(layer) for layer in layers}
        return {layer: made for layer, made in read.items() if made is not None}

    def of(self, layers: Sequence[LayerKind], label: str) -> dict[LayerKind, Choice]:
        """Returns the choices for all layers of a network, measuring by one process at a time."""
        found = self.there(layers)
        if len(found) == len(layers):
            return found
        with self._choices.alone() as require:
            self._measure(found, layers, label, require)
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

    def _name(self, layer: LayerKind) -> str:
        name = files.fingerprint([_VERSION, asdict(layer)])
        return f"{layer.channels}-{layer.filters}-{name[:16]}.json"

    def _read(self, layer: LayerKind) -> Choice | None:
        told = "the forms of this layer are measured again"
        return self._choices.read(self._name(layer), Choice, told)

    def _write(self, made: Choice) -> None:
        self._choices.write(self._name(made.layer), made)
        for form, why in made.refused.items():
            self._say(f"conv layer of {made.layer}: without form {form}: {why}")
