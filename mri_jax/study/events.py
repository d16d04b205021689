"""Curves for TensorBoard, as bytes of an event file.

tensorboardX's own writer has a thread and a hook at exit that tries once more what a full disk has
refused; its messages and checksums are used without it.
"""

import struct
from collections.abc import Iterable, Sequence
from typing import Any

from tensorboardX.proto.event_pb2 import Event
from tensorboardX.record_writer import masked_crc32c
from tensorboardX.summary import scalar

NAME = "events.out.tfevents.0.mri_jax"
"""TensorBoard looks for ``tfevents`` in the names of files."""


def event_file(rows: Iterable[dict[str, Any]], figures: Sequence[str]) -> bytes:
    """Returns the event file of one network.

    Args:
      rows: An epoch each, with ``epoch`` and the figures; None where there is none.
      figures: Which of them are curves.

    Returns:
      TFRecords: length, checksum of the length, message, checksum of the message; each time is 0,
      so that equal histories are equal bytes.
    """
    events = [Event(file_version="brain.Event:2")]
    for row in rows:
        for figure in figures:
            if row[figure] is not None:
                events.append(Event(step=row["epoch"], summary=scalar(figure, row[figure])))
    return b"".join(_record(event.SerializeToString()) for event in events)


def _record(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    checks = [struct.pack("<I", masked_crc32c(part)) for part in (length, data)]
    return length + checks[0] + data + checks[1]
