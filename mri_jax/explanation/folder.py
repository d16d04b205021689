"""One folder of results: maps, pictures and interactive views, each file whole."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import nibabel as nib
import numpy as np
from etils import epath

from mri_jax import files
from mri_jax.explanation import pictures
from mri_jax.explanation.check import Checked
from mri_jax.explanation.collect import Collected
from mri_jax.explanation.sanity import failures
from mri_jax.explanation.setting import ExplanationSetting
from mri_jax.runs.labels import of_stage
from mri_jax.showing.figures import Picture
from mri_jax.showing.simulated import prefixed
from mri_jax.volumes.export import nifti_bytes
from mri_jax.volumes.grids import Grid


def map_writer(
    out: epath.Path, grid: Grid, simulated: bool
) -> Callable[[str, np.ndarray, str], str]:
    """Returns a function that writes a map (X, Y, Z) as NIfTI and returns its name.

    It takes the name below ``out``, the map, and words for the file's header.
    """

    def write(name: str, values: np.ndarray, words: str) -> str:
        said = prefixed(words, simulated)
        files.write_bytes(out / name, nifti_bytes(values.astype(np.float32), grid, said))
        return name

    return write


@dataclass(frozen=True, eq=False)
class Folder:
    """Writes the parts of one folder, each file whole.

    Attributes:
      out: The folder.
      setting: What was explained, and how.
      grid: Grid of the maps.
      anatomy: Grey background of pictures.
      collected: The maps.
      checked: The checks of each stage; empty without.
    """

    out: epath.Path
    setting: ExplanationSetting
    grid: Grid
    anatomy: nib.Nifti1Image
    collected: Collected
    checked: Sequence[Checked]

    def title(self, method: str, stage: str) -> str:
        """Returns ``METHOD, STAGE`` in people's words, and which checks the method failed there."""
        found = [v for c in self.checked if c.stage == stage for v in c.verdicts]
        failed = failures(found, method)
        return f"{method}, {of_stage(stage)}" + (
            f"{pictures.FAILED_MARK}{failed}" if failed else ""
        )

    def nifti(self, name: str, values: np.ndarray, words: str) -> str:
        """Write one map; ``words`` go to its header. Returns the name."""
        return map_writer(self.out, self.grid, self.setting.simulated)(name, values, words)

    @property
    def canvas(self) -> pictures.Canvas:
        """What all pictures of maps have in common."""
        brain, simulated = self.setting.background.brain, self.setting.simulated
        return pictures.Canvas(self.anatomy, brain, self.grid, simulated)

    def mosaic(
        self,
        key: str,
        title: str,
        caption: str,
        lines: Sequence[pictures.Line],
    ) -> Picture:
        """Draw one mosaic and write it as PNG."""
        return self.png(pictures.mosaic(key, title, caption, lines, self.canvas))

    def png(self, picture: Picture) -> Picture:
        """Write a picture; returns it."""
        files.write_bytes(self.out / f"pictures/{picture.key}.png", picture.png)
        return picture

    def view(self, key: str, title: str, values: np.ndarray) -> str:
        """Write nilearn's interactive page of a map; returns its name."""
        page = pictures.interactive(values, title, self.canvas)
        files.write_text(self.out / f"views/{key}.html", page)
        return f"views/{key}.html"
