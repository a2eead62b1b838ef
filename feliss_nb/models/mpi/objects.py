"""Objects as the buffers of a message, and what a receive does with what arrived."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from feliss_nb.models.mpi import constants
from feliss_nb.models.mpi.buffers import Section
from feliss_nb.models.mpi.endpoint import BUFFER, OBJECT, Arrival
from feliss_nb.models.mpi.failures import MPIError
from feliss_nb.state import codec

#: Gives the buffers of an object; they may be views of live memory.
Encode = Callable[[object], Sequence[Any]]
#: Gives the object of such buffers, which are its own.
Decode = Callable[[Sequence[Any]], Any]


def plain_encode(obj: object) -> list[Any]:
    """Give an object's pickle, then its arrays' own memory."""
    packed = codec.pack(obj, label="message")
    return [packed.data, *packed.buffers]


def plain_decode(buffers: Sequence[Any]) -> Any:
    """Give the object."""
    data, *rest = buffers
    return codec.unpack(data, rest)


class _Ways(threading.local):
    """How the calling thread's rank writes and reads objects."""

    encode: Encode = staticmethod(plain_encode)
    decode: Decode = staticmethod(plain_decode)


_ways = _Ways()


def use(ways: tuple[Encode, Decode] | None) -> tuple[Encode, Decode]:
    """Set how the calling thread's rank writes and reads objects, and give how it did before."""
    before = _ways.encode, _ways.decode
    _ways.encode, _ways.decode = ways or (plain_encode, plain_decode)
    return before


def encode(obj: Any) -> list[Any]:
    """Give the buffers of an object."""
    return list(_ways.encode(obj))


def decode(buffers: Sequence[Any]) -> Any:
    """Give the object; its arrays lie in the buffers where these are writable."""
    data, *rest = buffers
    return _ways.decode([data, *(_usable(buffer) for buffer in rest)])


def copied(obj: Any) -> Any:
    """Give an object as if it had been sent and received."""
    data, *rest = encode(obj)
    return _ways.decode([data, *codec.fresh(rest)])


def _usable(buffer: Any) -> Any:
    if memoryview(buffer).readonly:
        (buffer,) = codec.fresh([buffer])
    return buffer


def unpickled(_: Any, arrival: Arrival | None) -> Any:
    """Give the object that arrived."""
    if arrival is None or not arrival.buffers:
        return None  # from nobody, or cancelled
    if arrival.kind != OBJECT:
        raise MPIError(
            constants.ERR_TYPE, "memory was sent (upper case), an object is received (lower case)"
        )
    return decode(arrival.buffers)


def sink(section: Section) -> Callable[[Arrival], None]:
    """Give what writes a message to memory."""
    if not section.raw.flags.writeable:
        raise BufferError("the buffer is read-only; a receive needs one to write to")

    def take(arrival: Arrival) -> None:
        if arrival.kind != BUFFER:
            raise MPIError(
                constants.ERR_TYPE,
                "an object was sent (lower case), memory is received (upper case)",
            )
        if arrival.nbytes > section.nbytes:
            raise MPIError(
                constants.ERR_TRUNCATE,
                f"{arrival.nbytes} bytes came from rank {arrival.source} of the gang, "
                f"tag {arrival.tag}; the buffer takes {section.nbytes}",
            )
        section.write(arrival.buffers[0])

    return take
