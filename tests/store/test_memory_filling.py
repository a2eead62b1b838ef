"""A snapshot that an engine keeps before it is put together."""

import threading
from concurrent.futures import Future

import pytest

from feliss_nb.store.memory import MemoryStore


def test_who_wants_a_snapshot_waits_until_it_has_its_content():
    store, filled, memory = MemoryStore(), Future(), bytearray(4)
    store.put((1, 0), [memory], filled)
    assert store.nbytes() == {(1, 0): 4}
    read, begun = [], threading.Event()

    def reader():
        begun.set()
        read.append(bytes(store.get((1, 0))[0]))

    thread = threading.Thread(target=reader)
    thread.start()
    assert begun.wait(10)
    memory[:] = b"full"
    filled.set_result(None)
    thread.join(10)
    assert read == [b"full"]


def test_one_that_could_not_be_put_together_is_not_here():
    store, filled = MemoryStore(), Future()
    store.put((1, 0), [bytearray(4)], filled)
    filled.set_exception(MemoryError())
    with pytest.raises(KeyError):
        store.get((1, 0))
    assert store.nbytes() == {}


def test_one_that_is_dropped_meanwhile_is_gone():
    store, filled = MemoryStore(), Future()
    store.put((1, 0), [bytearray(4)], filled)
    store.drop(older=2)
    with pytest.raises(KeyError):
        store.get((1, 0))
