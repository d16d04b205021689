"""Two processes at once on one folder: one is told so, or both give the same bytes."""

import shutil
from pathlib import Path

from tests.abuse import actions
from tests.abuse.actions import Action
from tests.abuse.workers import Case, Outcome, run_cases


def pair(count: int, base: Path, work: Path) -> list[Outcome]:
    """So many pairs, shared out over the commands; ``silent`` where bytes differ."""
    outcomes = []
    for number in range(count):
        action = actions.ACTIONS[number % len(actions.ACTIONS)]
        wanted = actions.whole(action, base).written
        outcomes.append(_pair(action, wanted, base, work / f"twins-{number}"))
    return outcomes


def _pair(action: Action, wanted: dict[str, str], base: Path, work: Path) -> Outcome:
    folder = action.prepare(base, work)
    both = list(run_cases([Case(n, action.command(folder)) for n in "ab"], 2, 900))
    case = Case(f"{action.name} twice at once", lambda: None, "twin processes")
    bad = next((one for one in both if one.state not in ("done", "refused")), None)
    if bad is not None:
        outcome = Outcome(case, bad.state, said=bad.said)
    elif all(one.state == "refused" for one in both):
        outcome = Outcome(case, "traceback", said=f"neither ran: {both[0].said}")
    elif action.written(folder) != wanted:
        outcome = Outcome(case, "silent", said="other bytes than one process writes")
    else:
        refused = any(one.state == "refused" for one in both)
        outcome = Outcome(case, "refused" if refused else "done")
    shutil.rmtree(work)
    return outcome
