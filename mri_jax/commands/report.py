"""Tables, figures and one HTML page from results folders; nothing is trained again."""

import argparse

from mri_jax import files
from mri_jax.reporting.published import read_published
from mri_jax.reporting.report import write_report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of ``python -m mri_jax report``."""
    parser.add_argument(
        "runs", type=files.expanded, nargs="+", metavar="RUN", help="a results folder of launch.py"
    )
    parser.add_argument(
        "--out",
        type=files.expanded,
        help="where to write (default: the run itself; report/ beside several runs)",
    )
    parser.add_argument(
        "--shareable",
        action="store_true",
        help="one page without subject ids, dates, scan images, rows of single subjects",
    )
    parser.add_argument(
        "--published",
        type=files.expanded,
        help="CSV of values that a paper printed, shown beside ours",
    )
    parser.add_argument(
        "--seed", type=int, help="of bootstrap and permutations; default: that of the (first) run"
    )


def run(args: argparse.Namespace) -> int:
    """Write the report, and say what was found and where it is."""
    published = read_published(args.published) if args.published else None
    written = write_report(args.runs, args.out, args.shareable, published, args.seed)
    print("\n".join(written.words))
    if args.shareable:
        print(f"wrote {written.page}")
    else:
        print(f"wrote {written.page}, tables: {written.tables}, figures: {written.figures}")
    return 0
