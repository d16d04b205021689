"""``python -m mri_jax COMMAND``: one thin subcommand a room, imported only when asked for."""

import argparse
import difflib
import gc
import logging
import re
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from mri_jax import files
from mri_jax.errors import UserError
from mri_jax.interruption import Interruption
from mri_jax.progress import print_in_any_locale

# Command -> (module in mri_jax.commands, one line of help). A module offers `add_arguments(parser)`
# and `run(args) -> int`, where the integer is the exit code.
COMMANDS: dict[str, tuple[str, str]] = {
    "cohort": ("cohort", "from ADNI, AIBL, BIDS or CAPS to labelled, leak-free subjects"),
    "report": ("report", "tables, figures and one page from results folders, without retraining"),
    "preprocess": ("preprocess", "from raw T1w scans to a store of volumes"),
    "merge": ("merge", "join the shards of a store"),
    "qc": ("qc", "quality control of a store: figures, a page, written exclusions"),
    "export": ("export", "one volume of a store as NIfTI"),
    "explain": ("explain", "where networks look: maps, region tables, checks"),
    "predict": ("predict", "what a run's networks say about new scans: a table, a page a scan"),
    "export-model": ("export_model", "a run's networks as a portable folder with a model card"),
    "summary": ("summary", "the networks of a config: layers, parameters, memory of a step"),
    "kernels": ("kernels", "build and test the native CPU kernels"),
    "simulate": ("simulate", "make SIMULATED multi-site cohorts with a known truth"),
}


class _Parser(argparse.ArgumentParser):
    """A mistake is one line, as everywhere; ``--help`` tells the rest.

    ``~`` is expanded in every argument of type `Path` or `files.expanded`, also where no shell does
    (``--out=~/x``).
    """

    def __init__(self, *args: Any, **kwargs: Any):
        # An option that is cut short is a typo, not the option.
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})
        self.register("type", Path, lambda text: Path(_expanded(text)))
        self.register("type", files.expanded, _expanded)

    def error(self, message: str) -> NoReturn:
        """Print the line and leave with exit code 2."""
        unknown = re.match(r"unrecognized arguments: (--[\w-]+)", message)
        meant = _meant(self, unknown[1]) if unknown else ""
        self.exit(2, f"error: {message}{meant} ({self.prog} --help)\n")


def _meant(parser: argparse.ArgumentParser, unknown: str) -> str:
    """Returns what may be meant by an option that a command has not, for the end of a message."""
    having = [each.prog.split()[-1] for each in _subcommands(parser) if unknown in _options(each)]
    if having:
        return f"; that is an option of {', '.join(having)}"
    near = difflib.get_close_matches(unknown, _options(parser), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _options(parser: argparse.ArgumentParser) -> list[str]:
    """Returns the options of a parser and of its subcommands."""
    found: list[str] = []
    for action in parser._actions:
        found += action.option_strings
    for command in _subcommands(parser):
        found += _options(command)
    return found


def _subcommands(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    """Returns the parsers of a command's subcommands; none where it has no subcommand."""
    groups = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    return [command for group in groups for command in group.choices.values()]


def _expanded(text: str) -> str:
    try:
        return files.expanded(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def main(argv: Sequence[str] | None = None, interruption: Interruption | None = None) -> int:
    """Run one command; returns its exit code (2 for a user's mistake).

    Args:
      argv: The arguments; by default those of the process.
      interruption: What answers the signals of this process, where it has been installed.
    """
    print_in_any_locale()
    # Orbax tells at ERROR of what it raises as well.
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = _Parser(
        prog="python -m mri_jax",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="\n".join(f"  {name:<14} {text}" for name, (_, text) in COMMANDS.items()),
    )
    parser.add_argument("command", choices=list(COMMANDS), metavar="COMMAND")
    if not argv:
        parser.print_help()
        return 0
    name = parser.parse_args(argv[:1]).command
    module = import_module(f"mri_jax.commands.{COMMANDS[name][0]}")
    command = _Parser(
        prog=f"python -m mri_jax {name}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.add_arguments(command)
    if len(argv) == 1 and _subcommands(command):
        command.print_help(sys.stderr)
        return 2
    args = command.parse_args(argv[1:])
    interruption = interruption or Interruption()
    try:
        with interruption.raising():
            return module.run(args)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        if not files.is_full(error):
            raise
        print(f"error: {error.filename or name}: the disk is full", file=sys.stderr)
        return 2
    except RuntimeError as error:
        line = import_module("mri_jax.device_faults").explained(error)
        if not line:
            raise
        print(f"error: {line}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        if not interruption.asked():
            raise
    # Out of the handler, whose traceback holds pools of processes with semaphores: they are given
    # back before the process ends. Not by returning: threads at work would be waited for.
    gc.collect()
    return interruption.end()
