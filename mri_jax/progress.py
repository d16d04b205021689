"""What a user reads while work goes on: one bar on a terminal, plain lines elsewhere."""

import io
import sys
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import TextIO, TypeVar

from tqdm import tqdm

T = TypeVar("T")


def print_in_any_locale() -> None:
    """Let a stream whose encoding lacks a sign (a plus-minus in ASCII) print its escape.

    Otherwise the last line of hours of work would end them with a UnicodeEncodeError.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


class Progress:
    """A bar on a terminal; elsewhere a line at most every ``every`` seconds, and a last one.

    Example:
      with Progress(total=240, unit="subject", label="simulate") as progress:
          for subject in subjects:
              ...
              progress.advance(1, failed=2)
    """

    def __init__(
        self,
        total: int,
        unit: str,
        label: str,
        every: float = 10.0,
        stream: TextIO | None = None,
    ):
        self._stream = stream if stream is not None else sys.stderr
        self._total, self._unit, self._label, self._every = total, unit, label, every
        self._done, self._figures, self._told = 0, "", 0
        self._started = self._said = time.monotonic()
        self._bar: tqdm | None = None
        if self._stream.isatty():
            self._bar = tqdm(total=total, unit=unit, desc=label, file=self._stream)

    def advance(self, count: int = 1, **figures: object) -> None:
        """Count finished items; ``figures`` are shown beside (``loss="0.41"``)."""
        self._done += count
        self._figures = " ".join(f"{name}={value}" for name, value in figures.items())
        if self._bar is not None:
            if figures:
                self._bar.set_postfix_str(self._figures, refresh=False)
            self._bar.update(count)
        elif time.monotonic() - self._said >= self._every:
            self._say()

    def _say(self) -> None:
        self._said, self._told = time.monotonic(), self._done
        elapsed = self._said - self._started
        remaining = (self._total - self._done) * elapsed / max(self._done, 1)
        left = f", {remaining:.0f} s left" if self._done else ""
        print(
            f"{self._label}: {self._done}/{self._total} {self._unit}s, "
            f"{elapsed:.0f} s{left} {self._figures}".rstrip(),
            file=self._stream,
            flush=True,
        )

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()
        elif self._told < self._done:
            self._say()


def track(items: Iterable[T], total: int, unit: str, label: str) -> Iterator[T]:
    """Iterate over ``items`` while a `Progress` counts them."""
    with Progress(total, unit, label) as progress:
        for item in items:
            yield item
            progress.advance()
