"""Make SIMULATED multi-site cohorts: a cohort table, a volume store and the truth about both."""

import argparse

from mri_jax import backend, files
from mri_jax.commands.cluster_options import add_cluster_arguments, client_of
from mri_jax.errors import UserError
from mri_jax.problems import counted
from mri_jax.showing import simulated
from mri_jax.simulation import (
    CLASSES,
    COHORTS,
    SITES,
    SimulationSettings,
    cohorts_of_shift,
    default_cohorts,
    parse_cohort,
    simulate,
)
from mri_jax.simulation.check import Measurement, check
from mri_jax.simulation.sheets import write_sheets
from mri_jax.site_shifts import SHIFT_SETS, SHIFTS, shifts_named
from mri_jax.volumes.grids import GRIDS

# Options that say what to make; beside --check or --sheets, which read it from the folder, they
# would be ignored.
_MAKING = (
    "grid", "seed", "cohort", "sites", "classes", "paper_counts", "effect", "without", "shift",
    "strength", "raw", "workers", "cluster", "open_scheduler",
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "--out", type=files.expanded, metavar="DIR", help="folder to write (and to resume)"
    )
    parser.add_argument(
        "--check", type=files.expanded, metavar="DIR", help="check a finished folder and exit"
    )
    parser.add_argument(
        "--sheets", type=files.expanded, metavar="DIR", help="draw a finished folder and exit"
    )
    parser.add_argument(
        "--grid", metavar="|".join(GRIDS), help="of the volumes; default: demo"
    )  # fmt: skip
    parser.add_argument("--seed", type=int, help="of every random draw; default: 0")
    parser.add_argument(
        "--cohort", action="append", metavar="NAME:AD=..,CN=..",
        help="a site and its counts; may be repeated. Default: all four sites",
    )  # fmt: skip
    parser.add_argument(
        "--sites", type=int, metavar="N",
        help=f"instead the first N (2 to {len(SITES)}) of a study of many sites: the third of "
        "another field strength, the fourth of younger people, the last two small",
    )  # fmt: skip
    parser.add_argument(
        "--classes", metavar="AD,CN",
        help=f"diagnoses of the default cohorts; default: {','.join(CLASSES)}",
    )  # fmt: skip
    parser.add_argument(
        "--paper-counts", action="store_true", help="default cohorts in the paper's numbers"
    )
    parser.add_argument(
        "--effect", type=float, help="multiplies differences between diagnoses; default: 1"
    )
    parser.add_argument(
        "--without", metavar="SHIFT,..", help=f"make sites alike in these: {', '.join(SHIFTS)}"
    )
    parser.add_argument(
        "--shift", metavar=f"{'|'.join(SHIFT_SETS)}|SHIFT,..",
        help="what differs between sites, and nothing else; default cohorts have one share of "
        "patients everywhere, or where people differ a third of the patients elsewhere",
    )  # fmt: skip
    parser.add_argument(
        "--strength", type=float, help="multiplies how far sites are from the first; default: 1"
    )
    parser.add_argument(
        "--raw", action="store_true",
        help="whole heads with skull as BIDS trees, to feed the preprocessing",
    )  # fmt: skip
    parser.add_argument("--workers", type=int, help="scans made at once; default: processors, <= 4")
    add_cluster_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Simulate, or check or draw a folder."""
    if sum(bool(given) for given in (args.out, args.check, args.sheets)) != 1:
        raise UserError("--out, --check or --sheets: give one of them, with a folder")
    if args.out:
        settings = settings_from(args)
        backend.start()
        with client_of(args) as client:
            result = simulate(settings, args.out, workers=args.workers, client=client)
        print(f"{simulated.WORD}: {counted(settings.total, 'scan')}; {result.table_path}")
        return 0
    for name in _MAKING:
        value = getattr(args, name)
        if value is not None and value is not False:
            option = name.replace("_", "-")
            raise UserError(f"--{option}: says what to make and goes with --out only")
    if args.check:
        return report(check(args.check))
    for path in write_sheets(args.sheets):
        print(path)
    return 0


def report(findings: list[Measurement]) -> int:
    """Print findings; 0 if all passed, else 1."""
    print(f"{simulated.COHORTS}: these figures test the simulation and rank no method")
    for finding in findings:
        print(finding.line())
    failed = sum(not finding.passed for finding in findings)
    print(f"{counted(len(findings), 'finding')}, {failed} failed")
    return 1 if failed else 0


def settings_from(args: argparse.Namespace) -> SimulationSettings:
    """Returns the settings that the arguments ask for."""
    for name in ("paper_counts", "classes", "sites"):
        if args.cohort and getattr(args, name):
            option = name.replace("_", "-")
            raise UserError(f"--cohort: cannot be combined with --{option}")
    if args.sites is not None and args.paper_counts:
        raise UserError("--sites: cannot be combined with --paper-counts, which has none of them")
    if args.sites is not None and not 2 <= args.sites <= len(SITES):
        raise UserError(f"--sites: {args.sites} must be from 2 to {len(SITES)}")
    if args.raw and args.grid:
        raise UserError(f"--grid {args.grid}: raw heads have their scanner's voxels; leave it out")
    if args.workers is not None and args.workers < 1:
        raise UserError(f"--workers: {args.workers} must be at least 1")
    classes = CLASSES if args.classes is None else args.classes.split(",")
    cohorts = (
        tuple(parse_cohort(text) for text in args.cohort)
        if args.cohort
        else default_cohorts(
            classes,
            COHORTS if args.sites is None else SITES[: args.sites],
            paper_counts=args.paper_counts,
        )
    )
    if args.shift and args.without:
        raise UserError("--shift: cannot be combined with --without, which also says what differs")
    shifts = None if args.shift is None else shifts_named(args.shift)
    if shifts is not None and not args.cohort:
        cohorts = cohorts_of_shift(shifts, cohorts, cohorts[0].name)
    off = [name for name in (args.without or "").split(",") if name]
    unknown = [name for name in off if name not in SHIFTS]
    if unknown:
        raise UserError(f"--without: {unknown[0]!r} is unknown; choose among {', '.join(SHIFTS)}")
    return SimulationSettings(
        grid=args.grid or "demo",
        seed=args.seed or 0,
        cohorts=cohorts,
        effect=1.0 if args.effect is None else args.effect,
        shifts=tuple(name for name in SHIFTS if name not in off) if shifts is None else shifts,
        strength=1.0 if args.strength is None else args.strength,
        raw=args.raw,
    )
