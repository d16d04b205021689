"""Make SIMULATED multi-site cohorts: a cohort table, a volume store and the truth about both."""

import argparse

from mri_jax.errors import UserError
from mri_jax.simulation import (
    CLASSES,
    SHIFTS,
    SimulationSettings,
    default_cohorts,
    parse_cohort,
    simulate,
)
from mri_jax.simulation.check import Finding, check
from mri_jax.simulation.sheets import write_sheets
from mri_jax.volumes.grids import GRIDS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--out", metavar="DIR", help="folder to write (and to resume)")
    parser.add_argument("--check", metavar="DIR", help="check a finished folder and exit")
    parser.add_argument("--sheets", metavar="DIR", help="draw a finished folder and exit")
    parser.add_argument("--grid", choices=list(GRIDS), help="of the volumes; default: demo")
    parser.add_argument("--seed", type=int, default=0, help="of every random draw; default: 0")
    parser.add_argument(
        "--cohort", action="append", default=[], metavar="NAME:AD=..,CN=..",
        help="a site and its counts; may be repeated. Default: all four sites",
    )  # fmt: skip
    parser.add_argument(
        "--classes", default=",".join(CLASSES), metavar="AD,CN",
        help="diagnoses of the default cohorts",
    )  # fmt: skip
    parser.add_argument(
        "--paper-counts", action="store_true", help="default cohorts in the paper's numbers"
    )
    parser.add_argument(
        "--effect", type=float, default=1.0, help="multiplies differences between diagnoses"
    )
    parser.add_argument(
        "--without", default="", metavar="SHIFT,..",
        help=f"make sites alike in these: {', '.join(SHIFTS)}",
    )  # fmt: skip
    parser.add_argument(
        "--raw", action="store_true",
        help="whole heads with skull as BIDS trees, to feed the preprocessing",
    )  # fmt: skip
    parser.add_argument("--workers", type=int, help="scans made at once; default: processors, <= 4")


def run(args: argparse.Namespace) -> int:
    """Simulate, or check a folder."""
    if sum(given is not None for given in (args.out, args.check, args.sheets)) != 1:
        raise UserError("--out, --check or --sheets: give one of them, with a folder")
    if args.sheets is not None:
        for path in write_sheets(args.sheets):
            print(path)
        return 0
    if args.check is not None:
        return report(check(args.check))
    settings = settings_from(args)
    result = simulate(settings, args.out, workers=args.workers)
    print(f"SIMULATED: {settings.total} scans; {result.table_path}")
    return 0


def report(findings: list[Finding]) -> int:
    """Print findings; 0 if all passed, else 1."""
    print("SIMULATED cohorts: these figures test the simulation and rank no method")
    for finding in findings:
        print(finding.line())
    failed = sum(not finding.passed for finding in findings)
    print(f"{len(findings)} findings, {failed} failed")
    return 1 if failed else 0


def settings_from(args: argparse.Namespace) -> SimulationSettings:
    """The settings that the arguments ask for."""
    if args.cohort and args.paper_counts:
        raise UserError("--cohort: cannot be combined with --paper-counts")
    if args.raw and args.grid:
        raise UserError(f"--grid {args.grid}: raw heads have their scanner's voxels; leave it out")
    if args.workers is not None and args.workers < 1:
        raise UserError(f"--workers: {args.workers} must be at least 1")
    cohorts = (
        tuple(parse_cohort(text) for text in args.cohort)
        if args.cohort
        else default_cohorts(args.classes.split(","), paper_counts=args.paper_counts)
    )
    off = [name for name in args.without.split(",") if name]
    unknown = [name for name in off if name not in SHIFTS]
    if unknown:
        raise UserError(f"--without: {unknown[0]!r} is unknown; choose among {', '.join(SHIFTS)}")
    return SimulationSettings(
        grid=args.grid or "demo",
        seed=args.seed,
        cohorts=cohorts,
        effect=args.effect,
        shifts=tuple(name for name in SHIFTS if name not in off),
        raw=args.raw,
    )
