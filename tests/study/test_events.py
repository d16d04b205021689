import struct

from tensorboardX.proto.event_pb2 import Event

from mri_jax.study.events import event_file


def messages(data: bytes) -> list[Event]:
    found = []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        found.append(Event.FromString(data[12 : 12 + length]))
        data = data[16 + length :]
    return found


def test_every_figure_of_an_epoch_is_a_point_and_absent_ones_are_none():
    rows = [
        {"epoch": 1, "train_loss": 0.5, "validation_loss": None},
        {"epoch": 2, "train_loss": 0.25, "validation_loss": 0.75},
    ]
    first, *points = messages(event_file(rows, ("train_loss", "validation_loss")))
    assert first.file_version == "brain.Event:2"
    told = [(p.step, p.summary.value[0].tag, p.summary.value[0].simple_value) for p in points]
    assert told == [(1, "train_loss", 0.5), (2, "train_loss", 0.25), (2, "validation_loss", 0.75)]


def test_checksums_are_those_of_the_format():
    # "123456789" has the CRC-32C 0xe3069283, which TFRecord masks by rotation and a constant.
    from mri_jax.study import events

    record = events._record(b"123456789")
    masked = ((0xE3069283 >> 15 | 0xE3069283 << 17) + 0xA282EAD8) & 0xFFFFFFFF
    assert record[:8] == struct.pack("<Q", 9)
    assert record[12:21] == b"123456789"
    assert record[21:] == struct.pack("<I", masked)
