"""Building and loading native kernels: once, for their owner, with a line for what goes wrong."""

import os
import re
import stat

import pytest

from mri_jax.cli import main
from mri_jax.errors import UserError
from mri_jax.models.conv_layer import kernels
from tests.conftest import needs_compiler
from tests.models import sanitize

# Stands for a compiler: writes a line to the file after -o, and counts its calls.
_COMPILER = """#!/bin/sh
if [ "$1" = --version ]; then echo fake 1.0; exit 0; fi
echo called >> "{calls}"
while [ "$1" != -o ]; do shift; done
echo library > "$2"
"""


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "mri_jax" / "kernels"


@pytest.fixture
def calls(tmp_path, monkeypatch, cache):
    script, calls = tmp_path / "compiler", tmp_path / "calls"
    script.write_text(_COMPILER.format(calls=calls), encoding="utf-8")
    script.chmod(0o700)
    monkeypatch.setenv("CXX", str(script))
    return calls


def test_a_library_is_built_once_for_its_owner_alone(cache, calls, capsys):
    library = kernels.built()
    assert library == kernels.built()
    assert calls.read_text(encoding="utf-8") == "called\n" * 3  # two compile, one links
    assert library.read_text(encoding="utf-8") == "library\n"
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700
    assert stat.S_IMODE(library.stat().st_mode) == 0o600
    assert sorted(path.name for path in cache.iterdir()) == sorted(["lock", library.name])
    assert capsys.readouterr().err.count("building CPU kernels") == 1


def test_another_source_compiler_or_jaxlib_is_another_library(calls, monkeypatch):
    names = {kernels.built().name}
    monkeypatch.setattr(kernels, "version", lambda _: "0.0.1")
    names.add(kernels.built().name)
    monkeypatch.setattr(kernels, "_FLAGS", (*kernels._FLAGS, "-DOTHER"))
    names.add(kernels.built().name)
    assert len(names) == 3


def test_a_machine_without_a_compiler_takes_what_another_of_its_kind_built(calls, monkeypatch):
    library = kernels.built()
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert kernels.built() == library
    library.chmod(0o620)
    with pytest.raises(UserError, match="may be written by others"):
        kernels.built()
    library.chmod(0o600)
    monkeypatch.setattr(kernels, "_processor", lambda: ["another"])
    with pytest.raises(UserError, match=r"no C\+\+ compiler"):
        kernels.built()


def test_what_cannot_be_loaded_is_one_line(calls):
    library = kernels.built()  # a line of text
    with pytest.raises(UserError, match=f"{library} cannot be loaded"):
        kernels.register.__wrapped__()


def test_what_others_may_write_is_not_loaded(cache, calls):
    library = kernels.built()
    library.chmod(0o620)
    with pytest.raises(UserError, match="may be written by others"):
        kernels.built()
    library.unlink()
    elsewhere = cache / "elsewhere"
    elsewhere.write_text("library", encoding="utf-8")
    library.symlink_to(elsewhere)
    with pytest.raises(UserError, match=r"is a link|may be written"):
        kernels.built()
    library.unlink()
    cache.chmod(0o770)
    with pytest.raises(UserError, match="may be written by others"):
        kernels.built()


def test_no_compiler_and_a_failing_one_are_one_line(cache, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UserError, match=r"no C\+\+ compiler \(no-such-compiler\)"):
        kernels.built()
    monkeypatch.setenv("CXX", "false")
    with pytest.raises(UserError, match="failed"):
        kernels.built()
    assert [path.name for path in cache.iterdir()] == ["lock"]


@needs_compiler
def test_the_command_builds_and_compares(capsys):
    assert main(["kernels"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("library: ")
    assert os.path.exists(said.split()[1])
    assert said.count("difference from XLA") == said.count("(allowed 2e-05)") == 18
    pooled = r"layer of 1 to 8 channels: max-pooling +difference from XLA 0 \(allowed"
    assert re.search(pooled, said)
    assert "agree with XLA's convolution" in said


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize("sanitizer", sanitize.SANITIZERS)
def test_sanitizers_find_nothing(tmp_path, sanitizer):
    done = sanitize.run(sanitizer, "native", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "936 layers, 0 wrong\n"
