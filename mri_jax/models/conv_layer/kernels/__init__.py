"""Native kernels for CPUs: C++ source, compiled at first use for the machine at hand, and loaded.

``conv3.hpp`` holds the kernels, ``ffi.cpp`` their doors for XLA. The library lies in the user's
cache folder under a name that changes with the source, the processor, jaxlib and the compiler; it
is built beside and renamed, by one process at a time, and nothing that is not the user's own is
loaded. A machine without a compiler takes what another one of the same kind built.
"""

import ctypes
import functools
import os
import platform
import shutil
import stat
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import jax
from filelock import FileLock

from mri_jax import files
from mri_jax.errors import UserError

_WAYS = ("forward", "backward")
TARGETS = tuple(f"conv3_{way}_{dtype}" for way in _WAYS for dtype in ("f32", "f64"))
_FLAGS = ("-std=c++20", "-O3", "-march=native", "-Wno-psabi", "-fPIC")


@functools.cache
def register() -> None:
    """Make the kernels known to XLA as `TARGETS`, for this process; builds them where need be.

    Raises:
      UserError: There is no C++ compiler, it fails, the cache folder is not the user's alone, or
        the library cannot be loaded.
    """
    place = built()
    try:
        library = ctypes.CDLL(str(place))
    except OSError as error:  # damaged, or in a folder from which nothing may be executed
        told = str(error).removeprefix(f"{place}: ")
        raise UserError(
            f"native kernels: {place} cannot be loaded ({told}); remove it, or set XDG_CACHE_HOME "
            "to a folder from which programs may be run"
        ) from None
    for name in TARGETS:
        target = jax.ffi.pycapsule(getattr(library, name))
        jax.ffi.register_ffi_target(name, target, platform="cpu")


def built() -> Path:
    """Returns the library of this machine, built if it is not there.

    Raises:
      UserError: As in `register`.
    """
    folder, name = _own_folder(cache_folder()), f"conv3-{_identity()[:16]}"
    try:
        compiler = find_compiler()
    except UserError:
        # Of another machine that shares the folder.
        libraries = sorted(folder.glob(f"{name}-*.so"))
        if not libraries:
            raise
        _refuse_foreign(libraries[0])
        return libraries[0]
    try:
        library = folder / f"{name}-{_told_by(compiler)[:8]}.so"
        if not library.exists():
            with FileLock(str(folder / "lock")):
                if not library.exists():
                    _build(compiler, library)
    except OSError as error:
        what = error.filename or folder
        raise UserError(f"native kernels: {what}: {error.strerror or error}") from None
    _refuse_foreign(library)
    return library


def cache_folder() -> Path:
    """Returns where libraries are kept: ``$XDG_CACHE_HOME/mri_jax/kernels``, or below ~/.cache.

    Raises:
      UserError: Neither is known, as in a container for a user without a home.
    """
    try:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError:
        raise UserError(
            "native kernels: this user has no home folder; set XDG_CACHE_HOME to a folder of theirs"
        ) from None
    return Path(base) / "mri_jax" / "kernels"


def find_compiler() -> str:
    """Returns the path of the C++ compiler: ``$CXX``, or the first of the usual names.

    Raises:
      UserError: There is none.
    """
    named = os.environ.get("CXX")
    for name in [named] if named else ["g++", "clang++", "c++"]:
        if found := shutil.which(name):
            return found
    raise UserError(
        f"native kernels: no C++ compiler ({named or 'g++, clang++, c++'}) was found; install one "
        "(Debian, Ubuntu: apt install g++; conda: gxx)"
    )


def _identity() -> str:
    """Returns a hash of all that the library's bytes depend on beside the compiler."""
    sources = sorted(Path(__file__).parent.glob("*.[ch]pp"))
    return files.fingerprint(
        {
            "sources": {path.name: files.sha256_of_file(path) for path in sources},
            "flags": _FLAGS,
            "processor": _processor(),
            "jaxlib": version("jaxlib"),
        }
    )


def _told_by(compiler: str) -> str:
    """Returns a hash of what a compiler says of its version."""
    command = [compiler, "--version"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    return files.fingerprint(done.stdout)


def _processor() -> list[str]:
    """Returns what tells processors apart for whom the compiler writes other code."""
    told = [platform.machine(), platform.processor()]
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            lines = dict(line.split(":", 1) for line in file if ":" in line)
    except OSError:
        return told
    # A processor tells its abilities as "flags" (x86) or "Features" (ARM).
    kinds = {name.strip(): value.strip() for name, value in lines.items()}
    return told + [kinds.get(name, "") for name in ("model name", "flags", "Features")]


def _build(compiler: str, library: Path) -> None:
    print(f"building CPU kernels with {compiler} (once, about 20 s)", file=sys.stderr, flush=True)
    started = time.monotonic()
    for left in library.parent.glob(".*.tmp"):  # of a build that was killed; one builds at a time
        shutil.rmtree(left, ignore_errors=True)
    beside = library.with_name(f".{library.name}.{os.getpid()}.tmp")
    beside.mkdir(mode=0o700)
    try:
        source, included = str(Path(__file__).parent / "ffi.cpp"), jax.ffi.include_dir()
        objects = [str(beside / f"{way}.o") for way in _WAYS]
        flags = [*_FLAGS, "-isystem", included]
        _run_all(
            compiler,
            [
                [*flags, "-c", source, f"-DCONV3_{way.upper()}", "-o", made]
                for way, made in zip(_WAYS, objects, strict=True)
            ],
        )
        linked = beside / library.name
        _run_all(compiler, [["-shared", *objects, "-o", str(linked)]])
        linked.chmod(0o600)
        linked.replace(library)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    print(f"built in {time.monotonic() - started:.0f} s: {library}", file=sys.stderr, flush=True)


def _run_all(compiler: str, commands: list[list[str]]) -> None:
    """Run a compiler with several sets of arguments side by side.

    Raises:
      UserError: One run failed; all have ended.
    """
    running = [
        subprocess.Popen([compiler, *told], stderr=subprocess.PIPE, encoding="utf-8")
        for told in commands
    ]
    errors = [process.communicate()[1] for process in running]
    for process, said in zip(running, errors, strict=True):
        if process.returncode:
            line = next((line for line in said.splitlines() if "error" in line), said[:200])
            raise UserError(
                f"native kernels: {compiler} failed ({line.strip()}); install a C++20 compiler "
                "(GCC 10, Clang 12 or newer)"
            )


def _own_folder(folder: Path) -> Path:
    """Returns the folder, made for its owner alone.

    Raises:
      UserError: It is another user's, others may write to it, or it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror})") from None
    _refuse_foreign(folder)
    return folder


def _refuse_foreign(path: Path) -> None:
    found = path.lstat()
    if found.st_uid != os.getuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise UserError(
            f"{path}: belongs to another user or may be written by others; remove it (native "
            "kernels are loaded from your own files alone)"
        )
    if stat.S_ISLNK(found.st_mode):
        raise UserError(f"{path}: is a link; native kernels are loaded from files alone")
