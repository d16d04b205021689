"""The kernels of a compiled GPU program and the bytes that they move, read from its text.

XLA's text of a program for a GPU has one instruction for each kernel in its entry computation. A
kernel writes its results and reads of its operands what the results are made of: of an operand that
is only sliced, the slice. That each number is read once by a kernel is assumed; nothing is known of
caches.
"""

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

_ARRAY = re.compile(r"\b(pred|bf16|[fsuc]\d+)\[([\d,]*)\]")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%(\S+) = (.+?) ([a-z][a-z\d\-]*)\((.*)$")
_COMPUTATION = re.compile(r"^(ENTRY )?%(\S+) \(.*\{$")
# What moves no byte.
_FREE = {"parameter", "constant", "bitcast", "tuple", "get-tuple-element", "after-all"}
# What needs all of its operands for one of its results; others need as many numbers as they give.
_WHOLE = {
    "reduce",
    "reduce-window",
    "dot",
    "convolution",
    "gather",
    "scatter",
    "sort",
    "custom-call",
}
_UNCOUNTED = {"while", "conditional", "call"}


@dataclass(frozen=True)
class Array:
    """An array: XLA's name of its dtype, its shape."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Returns how many numbers it has."""
        return prod(self.shape)

    @property
    def item(self) -> int:
        """Returns the bytes of a number."""
        return 1 if self.dtype == "pred" else int(self.dtype.lstrip("bfsuc")) // 8

    @property
    def bytes(self) -> int:
        """Returns its bytes."""
        return self.size * self.item

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.shape))}]"


@dataclass(frozen=True)
class Kernel:
    """A kernel.

    Attributes:
      name: The instruction's.
      made: What it writes.
      moved: Bytes that it reads and writes.
      source: Where in the traced program it is from, as JAX says; may be empty.
    """

    name: str
    made: tuple[Array, ...]
    moved: int
    source: str


@dataclass(frozen=True)
class _Instruction:
    name: str
    arrays: tuple[Array, ...]
    opcode: str
    operands: tuple[str, ...]
    line: str

    def attribute(self, pattern: str) -> str:
        found = re.search(pattern, self.line)
        return found[1] if found else ""


def kernels(text: str) -> list[Kernel]:
    """Returns the kernels of a compiled program, in the order in which they run.

    Args:
      text: Of `jax.stages.Compiled.as_text`, for a GPU.

    Raises:
      ValueError: The program has loops or branches, whose kernels are not counted.
    """
    entry, computations = _parsed(text)
    known = {instruction.name: instruction for instruction in entry}
    found = []
    for one in entry:
        if one.opcode in _UNCOUNTED:
            raise ValueError(f"kernels inside {one.opcode} %{one.name} are not counted")
        if one.opcode in _FREE or one.opcode.endswith("-done"):
            continue
        inside = computations.get(one.attribute(r"calls=%([^,\s]+)"))
        given = [known[operand].arrays for operand in one.operands]
        if inside is None:
            read = sum(array.bytes for arrays in given for array in arrays)
        else:
            read = _read(inside)
        written = sum(array.bytes for array in one.arrays)
        source = one.attribute(r'op_name="([^"]*)"')
        found.append(Kernel(one.name, one.arrays, read + written, source))
    return found


def _parsed(text: str) -> tuple[list[_Instruction], dict[str, list[_Instruction]]]:
    """Returns the instructions of the entry computation, and of all computations by name."""
    computations: dict[str, list[_Instruction]] = {}
    entry: list[_Instruction] | None = None
    current: list[_Instruction] = []
    for line in text.splitlines():
        if begins := _COMPUTATION.match(line):
            current = computations[begins[2]] = []
            entry = current if begins[1] else entry
        elif found := _INSTRUCTION.match(line):
            _, name, made, opcode, rest = found.groups()
            operands = tuple(re.findall(r"%([^\s,()]+)", _until_closed(rest)))
            current.append(_Instruction(name, tuple(_arrays(made)), opcode, operands, line))
    if entry is None:
        raise ValueError("no text of a compiled program: it has no entry computation")
    return entry, computations


def _until_closed(text: str) -> str:
    """Returns text up to the parenthesis that closes one before it."""
    depth = 1
    for place, sign in enumerate(text):
        depth += (sign == "(") - (sign == ")")
        if depth == 0:
            return text[:place]
    return text


def _arrays(text: str) -> Iterator[Array]:
    for dtype, shape in _ARRAY.findall(text):
        yield Array(dtype, tuple(int(n) for n in shape.split(",") if n))


def _read(fused: list[_Instruction]) -> int:
    """Returns the bytes that a fused computation reads of its parameters."""
    known = {instruction.name: instruction for instruction in fused}
    wanted: dict[str, int] = defaultdict(int)
    last = fused[-1]
    wanted[last.name] = sum(array.size for array in last.arrays)
    read = 0
    for one in reversed(fused):
        size = sum(array.size for array in one.arrays)
        numbers = min(wanted[one.name], size)
        if one.opcode == "parameter":
            read += numbers * max((array.item for array in one.arrays), default=0)
        for operand in one.operands:
            all_of_it = sum(array.size for array in known[operand].arrays)
            of_it = all_of_it if one.opcode in _WHOLE else numbers
            wanted[operand] += min(all_of_it, of_it)
    return read
