"""``python -m mri_jax explain``: from a run to a folder of maps, tables, checks and one page."""

from collections.abc import Callable

from etils import epath

from mri_jax.errors import UserError
from mri_jax.explanation import pictures
from mri_jax.explanation.check import PermutedNetwork, check_run, common_fold
from mri_jax.explanation.collect import collect
from mri_jax.explanation.facts import facts_of
from mri_jax.explanation.folder import Folder, map_writer
from mri_jax.explanation.outputs import write_outputs
from mri_jax.explanation.prepare import setting_of
from mri_jax.explanation.request import Request
from mri_jax.explanation.selection import select_scans
from mri_jax.models import CNNSpec
from mri_jax.runs.trained import TrainedRun


def explain(
    run: TrainedRun,
    request: Request,
    out: epath.PathLike,
    permuted: Callable[[TrainedRun, str, int, CNNSpec], PermutedNetwork] | None = None,
    say: Callable[[str], None] = print,
) -> epath.Path:
    """Explain scans of a run by its networks, and write everything.

    Args:
      run: The run.
      request: What to explain, and how.
      out: Folder of the results.
      permuted: For the checks: trains (or finds) the network of permuted labels for a variant, a
        fold and an architecture; None makes no checks.
      say: Where the summary goes.

    Returns:
      The page.

    Raises:
      UserError: The run has no such networks, cohort or subjects; a label image is unusable.
    """
    variant = request.variant or run.variants[0]
    stages = request.stages or run.stages(variant)
    if request.region_names is not None and request.regions is None:
        raise UserError("region-names: needs --regions, the label image that they name")
    scans = select_scans(run, variant, stages, request.choice)
    setting = setting_of(run, variant, stages, request, scans, check=permuted is not None)
    # Training first: it is the longest part, and fails early where it cannot be done.
    controls = []
    if permuted:
        fold = common_fold(scans)
        # Methods of adaptation may give a network a gate that its source network lacks.
        specs = (run.ensemble(variant, stage)[fold].load().spec for stage in stages)
        controls = [permuted(run, variant, fold, spec) for spec in dict.fromkeys(specs)]
    folder = epath.Path(out)
    reader = run.reader(tuple(scan.key for scan in scans))
    grid, background = run.store.info.grid, setting.background
    write = map_writer(folder, grid, setting.simulated)
    collected = collect(setting, scans, reader, write, request.threads)
    checked = check_run(run, variant, setting, controls, scans, collected) if controls else []
    anatomy = pictures.anatomy_of(background.mean[..., 0], background.reach, grid)
    to = Folder(folder, setting, grid, anatomy, collected, checked)
    facts = facts_of(run, variant, request, setting, scans, collected)
    return write_outputs(to, facts, scans, say)
