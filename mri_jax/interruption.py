"""SIGTERM and Ctrl-C for processes of our own: an answer within seconds, whatever is going on.

Python runs a signal's handler between two of its own instructions, and the main thread may be for
minutes inside a compiler or a library. The signal therefore also wakes a thread, which ends the
process if the main thread does not: everything on disk appears whole or not at all, so that the
same command goes on. Importing this module changes nothing; `Interruption.install` does.
"""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

CODE = 75
"""Exit code of a process that can be continued (``EX_TEMPFAIL``)."""
LINE = "interrupted; nothing is half written, and the same command goes on"
# Seconds that the main thread has to end by itself; SLURM kills after 30.
_GRACE = 12.0
# As many again where it has been heard and is saving, perhaps to a bucket.
_SAVING = 60.0
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interrupted(Exception):
    """Work was asked to stop; its state is saved."""


def hold_signals() -> None:
    """Keep signals waiting until `Interruption.install`, also across ``execve``."""
    if os.name == "posix":
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)


class Interruption:
    """What becomes of SIGTERM and Ctrl-C.

    At first, while modules are imported and arguments read, they end the process at once. Inside
    `raising` the first one raises KeyboardInterrupt, so that temporary files are removed; inside
    `polled` the work asks for them by `asked`. Either has some seconds, then the process is ended.
    A second Ctrl-C ends it at once.

    Args:
      grace: Seconds that the main thread has.
    """

    def __init__(self, grace: float = _GRACE):
        self._grace = grace
        self._arrived = threading.Event()
        self._heard = self._raised = False
        self._phase = ""

    def install(self) -> "Interruption":
        """Answer the signals of this process from now on; only its main thread may ask for it.

        On other systems than POSIX nothing changes.
        """
        if os.name != "posix":
            return self
        read, write = os.pipe()
        os.set_blocking(write, False)
        for number in _SIGNALS:
            signal.signal(number, self._handle)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        os.register_at_fork(after_in_child=_forget)
        threading.Thread(target=self._watch, args=(read,), daemon=True).start()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        return self

    def asked(self) -> bool:
        """Returns whether to save and stop; who was told so has time to save."""
        self._heard = self._arrived.is_set()
        return self._heard

    @contextlib.contextmanager
    def raising(self) -> Iterator[None]:
        """Raises KeyboardInterrupt here at the first signal."""
        with self._in("raising"):
            yield

    @contextlib.contextmanager
    def polled(self) -> Iterator[None]:
        """Leaves a signal to be asked for here, by `asked`."""
        with self._in("polled"):
            yield

    def end(self) -> NoReturn:
        """Say that the process can be continued, and end it and its children, waiting for none."""
        with contextlib.suppress(OSError):
            os.write(2, f"{LINE}\n".encode())
        with contextlib.suppress(Exception):  # another thread may be starting one
            for child in sys.modules["multiprocessing"].active_children():
                child.kill()
        os._exit(CODE)

    @contextlib.contextmanager
    def _in(self, phase: str) -> Iterator[None]:
        self._phase = phase
        try:
            yield
        finally:
            # Who was interrupted ends by itself; who was not has nothing to lose any more.
            self._phase = "ending" if self._arrived.is_set() else ""

    def _handle(self, number: int, frame: FrameType | None) -> None:
        """Handles a signal in the main thread, as soon as Python can."""
        self._arrived.set()
        if self._phase == "raising" and not self._raised:
            self._raised = True
            raise KeyboardInterrupt

    def _watch(self, read: int) -> None:
        """Wait for the numbers of signals, which come whatever the main thread does."""
        pressed, waiting = 0, False
        while True:
            for number in os.read(read, 64):
                pressed += number == signal.SIGINT
                if pressed > 1 or not self._phase:
                    self.end()
                if not waiting:
                    threading.Thread(target=self._end_later, daemon=True).start()
                waiting = True

    def _end_later(self) -> None:
        self._arrived.set()
        time.sleep(self._grace)
        if self._heard:
            time.sleep(_SAVING)
        self.end()


def _forget() -> None:
    """In a forked child: signals do there what they do in any process."""
    signal.set_wakeup_fd(-1)
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_DFL)
