"""The section of a config that asks for a search over networks and their training."""

from dataclasses import dataclass
from typing import Any, Literal

from mri_jax.errors import UserError
from mri_jax.settings.fields import ROOT, Choice, Flag, Many, Number, Overrides, Whole, field, shown

TPE, RANDOM, GRID = "tpe", "random", "grid"
NO_PRUNER = "none"
OBJECTIVES: dict[str, Literal["minimize", "maximize"]] = {
    "auc": "maximize",
    "loss": "minimize",
    "parameters": "minimize",
    "multiply_adds": "minimize",
    "step_seconds": "minimize",
}
"""What a trial may be judged by, and which way."""
OF_SCORES = ("auc", "loss")
"""Those that come from the inner held-out scans."""


@dataclass(frozen=True, kw_only=True)
class Search:
    """A search over networks and their training; docs/architecture_search.md."""

    trials: int = field(Whole(0, 100_000), "trials of the search; 0: there is none", 0)
    space: tuple[dict[str, Any], ...] = field(
        Many(Overrides(), 0, 100),
        "what is searched: lines with a field, a type and bounds (docs/architecture_search.md)",
        (),
    )
    sampler: str = field(Choice((TPE, RANDOM, GRID)), "how trials are drawn", TPE)
    startup: int = field(Whole(1, 100_000), "random trials before TPE begins", 5)
    beside: bool = field(Flag(), "run as many random trials beside, to compare with", True)
    objectives: tuple[str, ...] = field(
        Many(Choice(tuple(OBJECTIVES)), 1, len(OBJECTIVES), distinct=True),
        "what trials are judged by, the first of them auc or loss, of the inner held-out scans; "
        "several give a Pareto front, whose best in the first is the winner",
        ("auc",),
    )
    folds: int = field(Whole(2, 1000), "networks of a trial: folds inside what is not set aside", 3)
    parts: int = field(
        Whole(2, 1000), "parts of the source's subjects; one is set aside before the first trial", 5
    )
    pruner: str = field(
        Choice(("median", NO_PRUNER)),
        "what ends a trial early; median: a held-out loss worse than the median of other trials at "
        "that epoch",
        "median",
    )
    prune_after: int = field(Whole(1, 100_000), "epochs of a network before it may be pruned", 5)
    most_parameters: int = field(Whole(0, 10**15), "most parameters of a network; 0: any", 0)
    most_multiply_adds: int = field(
        Whole(0, 10**18), "most multiply-adds of a network for a volume; 0: any", 0
    )
    most_mebibytes: int = field(
        Whole(0, 10**9), "most memory of a training step, MiB; 0: what the device has", 0
    )
    most_seconds: float = field(
        Number(0, 1e6), "most seconds of a training step, as predicted; 0: any", 0.0
    )

    @property
    def needs_seconds(self) -> bool:
        """Whether the seconds of a step must be predicted."""
        return bool(self.most_seconds) or "step_seconds" in self.objectives


def check(search: Search) -> None:
    """Checks what the fields of a search say together.

    Raises:
      UserError: They contradict each other.
    """
    if not search.trials:
        return
    at = f"{ROOT}.search"
    if not search.space:
        raise UserError(f"{at}.space: is empty, and {at}.trials asks for {search.trials}")
    first = search.objectives[0]
    if first not in OF_SCORES:
        raise UserError(f"{at}.objectives: the first, {first!r}, must be 'auc' or 'loss'")
    if len(search.objectives) > 1 and search.pruner != NO_PRUNER:
        raise UserError(
            f"{at}.pruner: {search.pruner!r} must be 'none' with several objectives: what is worse "
            "in one may be on the front"
        )


def refuse_targets(objectives: Any, targets: Any) -> None:
    """Refuses a target among the objectives, before the rules of either are asked.

    Raises:
      UserError: One is named.
    """
    for each in _texts(objectives):
        if found := [target for target in _texts(targets) if target in each]:
            raise UserError(
                f"{ROOT}.search.objectives: {shown(each)} names {found[0]}, a target; targets are "
                "scored once, after the search, which sees the source alone"
            )


def _texts(values: Any) -> list[str]:
    found = values if isinstance(values, list | tuple) else []
    return [each for each in found if isinstance(each, str) and each]
