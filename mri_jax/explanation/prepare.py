"""From a request to what all its maps have in common: networks, methods, background, regions."""

from collections.abc import Sequence

from mri_jax.explanation.background import background_of
from mri_jax.explanation.methods import available, make_methods
from mri_jax.explanation.regions import read_regions, simulated_regions
from mri_jax.explanation.request import Request
from mri_jax.explanation.selection import ExplainedScan, classes_of, load_networks, scans_of
from mri_jax.explanation.setting import ExplanationSetting
from mri_jax.explanation.truth import read_truth
from mri_jax.runs.trained import TrainedRun


def setting_of(
    run: TrainedRun,
    variant: str,
    stages: Sequence[str],
    request: Request,
    scans: Sequence[ExplainedScan],
    check: bool,
) -> ExplanationSetting:
    """Returns what holds for all maps of a call.

    Args:
      run: The run.
      variant: The network variant.
      stages: Its stages.
      request: What is asked for.
      scans: Those that are explained.
      check: Whether the methods are checked.

    Raises:
      UserError: The cohort is not the run's, or a label image is unusable.
    """
    networks = load_networks(scans, request.forms)
    background = background_of(run.reader(scans_of(run, request.cohort)), request.threads)
    grid = run.store.info.grid
    regions = (
        simulated_regions(grid)
        if request.regions is None
        else read_regions(request.regions, request.region_names, grid, background.brain)
    )
    spec = next(iter(networks.values())).network.spec
    names = request.methods or available(spec)
    return ExplanationSetting(
        stages=tuple(stages),
        networks=networks,
        methods=make_methods(names, request.settings, spec, grid, background, regions.labels),
        background=background,
        regions=regions,
        truth=read_truth(run.store, background.brain) if check else None,
        check=check,
        classes=classes_of(run, variant, request.cohort),
        learned=run.diagnoses(variant),
        simulated=run.simulated or run.store.info.simulated,
    )
