import argparse
import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module

import pytest

from mri_jax import __main__ as entry
from mri_jax import allocator, cli
from tests.conftest import ROOT


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["simulate", "--out", "x", "--seed", "x"], "argument --seed: invalid int value: 'x'"),
        (["predikt"], "argument COMMAND: invalid choice: 'predikt'"),
        (
            ["cohort", "bids", "TREE", "--out=x.csv", "--diagnosis-colum", "sex"],
            "unrecognized arguments: --diagnosis-colum sex; did you mean --diagnosis-column?",
        ),
        (["explain"], "the following arguments are required: RUN, --out, --cohort"),
    ],
)
def test_a_wrong_argument_is_one_line_and_exit_code_2(arguments, line, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2
    (told,) = capsys.readouterr().err.splitlines()
    assert told.startswith(f"error: {line}")


def options_of(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from options_of(command)
        elif not isinstance(action, argparse._HelpAction):
            yield action


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_option_has_a_text_and_says_its_default(name):
    parser = argparse.ArgumentParser(prog=name)
    import_module(f"mri_jax.commands.{cli.COMMANDS[name][0]}").add_arguments(parser)
    for option in options_of(parser):
        assert option.help, option
        if option.option_strings and option.default not in (None, "", [], 0, False):
            assert "efault: " in option.help, option.help


def test_the_bare_command_prints_its_help(capsys):
    assert cli.main([]) == 0
    assert "\n  preprocess     from raw T1w scans" in capsys.readouterr().out


def test_a_command_without_its_subcommand_prints_its_help(capsys):
    assert cli.main(["cohort"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("usage: python -m mri_jax cohort [-h] SOURCE ...\n")
    assert "\n  cohort bids   DIR --out cohort.csv\n" in told
    assert "error" not in told


def test_a_full_disk_is_told_wherever_a_command_meets_it(monkeypatch, capsys):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device", "run/tables")

    monkeypatch.setattr("mri_jax.commands.report.write_report", full)
    assert cli.main(["report", "run"]) == 2
    assert capsys.readouterr().err == "error: run/tables: the disk is full\n"


def test_home_folders_are_found_where_no_shell_looks(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    for arguments in (
        ["report", "~/run"],
        ["export-model", "--out=out", "~/run"],
        ["simulate", "--check=~/run"],
        ["qc", "~/run"],
        ["explain", "~/run", "--out=~/x", "--cohort=A"],
    ):
        assert cli.main(arguments) == 2, arguments
        told = capsys.readouterr().err
        assert f"{tmp_path}/run" in told, arguments
    with pytest.raises(SystemExit):
        cli.main(["qc", "~nobody-of-this-name/x"])
    assert "no such home folder" in capsys.readouterr().err


def test_the_commands_that_run_networks_tune_their_own_process_alone(tmp_path):
    assert set(entry.TUNED) <= set(cli.COMMANDS)
    # Python runs this file at every start of the process below.
    (tmp_path / "sitecustomize.py").write_text(
        "import os; print(os.environ.get('GLIBC_TUNABLES', 'stock'), flush=True)", encoding="utf-8"
    )
    bare = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"}
    bare["PYTHONPATH"] = os.pathsep.join([str(tmp_path), str(ROOT)])

    def starts(command: str) -> list[str]:
        done = subprocess.run(
            [sys.executable, "-m", "mri_jax", command, "--help"],
            capture_output=True, cwd=ROOT, env=bare, timeout=60, check=True, encoding="utf-8",
        )  # fmt: skip
        return [line for line in done.stdout.splitlines() if line in ("stock", allocator.TUNED)]

    assert starts("qc") == ["stock"]
    if sys.platform == "linux":
        assert starts("predict") == ["stock", allocator.TUNED]
