"""Malloc settings for processes of our own: large pages, most memory kept, one arena.

The threads of other arenas would give memory back to the system and ask for it again in every step
(docs/performance.md). Blocks above 256 MiB do go back: kept, they are often not found again in one
piece, and a process that trained at full resolution held 3.2 GB instead of 2.1. A running process
cannot change this, so it starts itself again, before anything of JAX is loaded; importing mri_jax
never does.
"""

import os
import sys

TUNED = (
    "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=268435456"
    ":glibc.malloc.trim_threshold=17179869184:glibc.malloc.arena_max=1"
)


def kept_stock(argv: list[str]) -> bool:
    """Returns whether ``--allocator=stock`` is given; asked before flags are parsed."""
    return any(a in ("--allocator=stock", "-allocator=stock") for a in argv) or (
        "--allocator" in argv and argv[argv.index("--allocator") + 1 :][:1] == ["stock"]
    )


def tune() -> None:
    """Start this process again with the settings `TUNED`.

    `execve` keeps the process id, the streams, the signals and the exit code. On other systems than
    Linux nothing happens, nor where the user has set GLIBC_TUNABLES, be it to nothing.
    """
    if sys.platform != "linux" or "GLIBC_TUNABLES" in os.environ or not sys.executable:
        return
    environment = {**os.environ, "GLIBC_TUNABLES": TUNED}
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)
