"""The most memory that this process has had at a time, by the system's count."""

import contextlib
import resource
import sys
from pathlib import Path

_OF_PROCESS = Path("/proc/self")


def forget_peak() -> None:
    """Let the peak be counted from now on, where the system can (Linux)."""
    with contextlib.suppress(OSError):
        (_OF_PROCESS / "clear_refs").write_text("5", encoding="ascii")


def peak() -> int:
    """Returns the most bytes of memory that this process has had, since `forget_peak` or ever."""
    with contextlib.suppress(OSError):
        for line in (_OF_PROCESS / "status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
