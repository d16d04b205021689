"""Try what must not break, and print how often it did: ``python -m tests.abuse``.

  python -m tests.abuse                 everything (one to two hours on two cores)
  python -m tests.abuse --quick         damaged inputs, leaks and a kill: a few of each
  python -m tests.abuse --only leaks    one part: mutations, leaks, kills, disks, twins

Each line counts what was tried: refused in one line, done with the result of the undamaged input,
with another result that the damaged input means (listed on stderr), ended in a traceback, done
with a wrong result in silence, hung, or above 4 GB. Exit code 1 when a goal is missed; what failed
is listed, with the seed it can be repeated with.
"""

import argparse
import contextlib
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mri_jax.showing.forms import grid
from mri_jax.showing.table import from_rows
from tests.abuse import disks, doors, kills, leaks, made, twins
from tests.abuse.workers import Outcome, in_child, run_cases

COLUMNS = ("tried", "refused", "done", "other", "traceback", "silent", "hang", "memory")
PARTS = ("mutations", "leaks", "kills", "disks", "twins")
QUICK = PARTS[:3]


def main() -> int:
    """Run the parts asked for; 1 if a goal is missed."""
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m tests.abuse", None, __doc__, formatter_class=plain)
    parser.add_argument("--quick", action="store_true", help="a few of each, one kill")
    parser.add_argument("--only", choices=PARTS, action="append")
    parser.add_argument("--seed", type=int, default=2021)
    parser.add_argument("--count", type=int, help="damaged inputs; default: 1000, quick: 18")
    parser.add_argument("--kills", type=int, help="default: 100, quick: 1")
    parser.add_argument("--base", type=Path, help="folder that keeps what is damaged")
    parser.add_argument("--at-once", type=int, default=2, help="children at a time")
    args = parser.parse_args()
    started = time.monotonic()
    with contextlib.ExitStack() as stack:
        base = args.base or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="abuse-")))
        failures: list[str] = []
        figures: dict[str, Counter[str]] = {}
        for part in args.only or (QUICK if args.quick else PARTS):
            run_part(part, args, base, work, figures, failures)
    print("\n".join(table(figures)))
    print(f"{time.monotonic() - started:.0f} s, seed {args.seed}")
    return 1 if failures else 0


def run_part(part, args, base, work, figures, failures) -> None:
    """Run one part and count what came of it."""
    make(base)
    draw = random.Random(f"{part} {args.seed}")
    if part == "mutations":
        count = args.count or (18 if args.quick else 1000)
        mutations(base, work, count, args, figures, failures)
    elif part == "leaks":
        for outcome in run_cases(
            leaks.attempts(base, work, 25 if args.quick else 1), args.at_once, 600
        ):
            stopped = outcome.state == "refused" and leaks.named(outcome.case.name, outcome.said)
            state = {"done": "silent", "refused": "refused" if stopped else "traceback"}
            count_one(
                figures,
                failures,
                outcome.case.group,
                state.get(outcome.state, outcome.state),
                outcome,
            )
    elif part == "kills":
        for name, action, share in kills.shares(args.kills or (1 if args.quick else 100)):
            found = kills.kill(name, action, share, base, work / "kills", draw)
            for outcome in found:
                count_one(figures, failures, outcome.case.group, outcome.state, outcome)
    elif part == "disks":
        print(f"full disks: {disks.how()}")
        for outcome in disks.fill(20, base, work, draw):
            count_one(figures, failures, outcome.case.group, outcome.state, outcome)
    elif part == "twins":
        for outcome in twins.pair(12, base, work):
            count_one(figures, failures, outcome.case.group, outcome.state, outcome)


def make(base: Path) -> None:
    """Make what is damaged, unless it is there, and what children have in common."""
    base.mkdir(parents=True, exist_ok=True)
    found = in_child(lambda: made.make(base))
    if found.state != "done":
        raise SystemExit(found.said)
    made.warm(base)


def mutations(base, work, count, args, figures, failures) -> None:
    """Damaged inputs over the six doors."""
    whole = {}
    for door in doors.DOORS:
        whole[door.targets] = undamaged(
            door.name, lambda door=door: doors.ask(door, base / door.made, work / "whole")
        )["result"]
    config = undamaged("config", lambda: doors.configured_study(made.study_config(base / "table")))
    files = count * 5 // 6
    cases = [
        *doors.mutated(base, work, files, args.seed),
        *doors.configured(base, count - files, args.seed),
    ]
    for outcome in run_cases(cases, args.at_once, 240):
        state = outcome.state
        if state == "done" and outcome.case.group == "config":
            state = "done" if outcome.result == config else "other"  # a value may be a possible one
        elif state == "done":
            door, _, _ = doors.door_of(outcome.case)
            wanted, found = whole[door.targets], outcome.result["result"]
            if found not in (wanted, "done anew") and not doors.is_told(found, wanted):
                seeable = outcome.result["broken"] or doors.is_seeable(outcome.case)
                state = "silent" if seeable else "other"
        if state == "other":
            print(f"other: {outcome.case.name}", file=sys.stderr, flush=True)
        count_one(figures, failures, outcome.case.group, state, outcome)


def undamaged(name: str, act: Callable[[], Any]) -> Any:
    """What comes of an input before it is damaged."""
    found = in_child(act)
    if found.state != "done":
        raise SystemExit(f"{name}: undamaged: {found.state}: {found.said}")
    return found.result


def count_one(figures, failures, group: str, state: str, outcome: Outcome) -> None:
    """Add one outcome to the figures, and to the failures if it is one."""
    line = figures.setdefault(group, Counter())
    line["tried"] += 1
    line[state] += 1
    if line["tried"] % 20 == 0:
        print(f"{group}: {dict(line)}", file=sys.stderr, flush=True)
    if state not in ("refused", "done", "other"):
        failures.append(f"{state}: {outcome.case.name}\n{outcome.said[-1500:]}")
        print(f"FAILED {failures[-1]}", file=sys.stderr, flush=True)


def table(figures: dict[str, Counter[str]]) -> list[str]:
    """The figures as a Markdown table."""
    total: Counter[str] = sum(figures.values(), Counter())
    rows = [
        (name, *(line[column] for column in COLUMNS))
        for name, line in [*figures.items(), ("all", total)]
    ]
    return grid(from_rows("doors", "Doors", ("door", *COLUMNS), rows)).splitlines()


if __name__ == "__main__":
    sys.exit(main())
