"""What a user reads while work goes on: one bar on a terminal, plain lines elsewhere."""

import io
import sys
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Protocol, TextIO, TypeVar

from tqdm import tqdm

T = TypeVar("T")
# Seconds after which a rate says something.
_ENOUGH = 1.0


def print_in_any_locale() -> None:
    """Let a stream whose encoding lacks a sign (a plus-minus in ASCII) print its escape.

    Otherwise the last line of hours of work would end them with a UnicodeEncodeError. Lines are
    printed when they are said, also into a file: a process may be ended from outside.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace", line_buffering=True)


def duration(seconds: float) -> str:
    """Returns a time in words, as exact as it is known: ``42 s``, ``7 min``, ``3 h 5 min``."""
    if round(seconds) < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


class Advancing(Protocol):
    """What counts finished items, such as a `Progress`."""

    def advance(self, count: int = 1, **figures: object) -> None:
        """Count finished items; ``figures`` are shown beside."""


class Progress:
    """A bar on a terminal; elsewhere a line at most every ``every`` seconds, and a last one.

    Example:
      with Progress(total=240, unit="subject", label="simulate") as progress:
          for subject in subjects:
              ...
              progress.advance(1, failed=2)

    Args:
      total: Items.
      unit: What an item is, in the singular.
      label: What the work is.
      every: Least seconds between two lines.
      stream: Where to; by default standard error.
      compiles: Whether JAX compiles a program before the first item, which may take minutes: it is
        said at once, and stays beside the bar until the first item has come.
    """

    def __init__(
        self,
        total: int,
        unit: str,
        label: str,
        every: float = 10.0,
        stream: TextIO | None = None,
        compiles: bool = False,
    ):
        self._stream = stream if stream is not None else sys.stderr
        self._total, self._unit, self._label, self._every = total, unit, label, every
        self._done, self._figures, self._told = 0, "", 0
        self._started = self._said = time.monotonic()
        self._first: tuple[int, float] | None = None
        self._bar: tqdm | None = None
        if self._stream.isatty():
            self._bar = tqdm(total=total, unit=unit, desc=label, file=self._stream)
        if compiles:
            waiting = f"compiling, then the first {unit}"
            if self._bar is not None:
                self._bar.set_postfix_str(waiting)
            else:
                print(f"{label}: {waiting}", file=self._stream, flush=True)

    def advance(self, count: int = 1, **figures: object) -> None:
        """Count finished items; ``figures`` are shown beside (``loss="0.41"``)."""
        self._done += count
        if self._first is None and self._done:
            # What came before the first items includes compilation and says nothing of the rate.
            self._first = self._done, time.monotonic()
        self._figures = " ".join(f"{name}={value}" for name, value in figures.items())
        if self._bar is not None:
            if count or figures:
                self._bar.set_postfix_str(self._figures, refresh=False)
            self._bar.update(count)
        elif time.monotonic() - self._said >= self._every:
            self._say()

    def _say(self) -> None:
        self._said, self._told = time.monotonic(), self._done
        elapsed = duration(self._said - self._started)
        left = ""
        if self._first is not None and self._done > self._first[0]:
            since = self._said - self._first[1]
            if since >= _ENOUGH:
                rate = (self._done - self._first[0]) / since
                left = f", {duration((self._total - self._done) / rate)} left"
        print(
            f"{self._label}: {self._done}/{self._total} {self._unit}s, "
            f"{elapsed}{left} {self._figures}".rstrip(),
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
