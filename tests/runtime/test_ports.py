"""The ports of a cluster that starts are nobody else's until its controller binds them."""

from __future__ import annotations

import socket

import pytest
import zmq

from feliss_nb.runtime import cluster


def test_who_names_a_reserved_port_gets_it_and_nobody_else():
    reserved = cluster._reserve_ports()
    others = cluster._reserve_ports()
    ports = [each.getsockname()[1] for each in [*reserved, *others]]
    assert len(set(ports)) == len(ports) == 2 * cluster.PORTS
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        for port in ports:
            with socket.socket() as other, pytest.raises(OSError, match="in use"):
                other.bind(("", port))  # as ipyparallel looks for free ones
            router.bind(f"tcp://127.0.0.1:{port}")
        with context.socket(zmq.DEALER) as dealer:
            dealer.connect(f"tcp://127.0.0.1:{ports[0]}")
            dealer.send(b"hello")
            assert router.poll(10_000)
    for each in [*reserved, *others]:
        each.close()


def test_the_controller_gets_them_by_number():
    reserved = cluster._reserve_ports()
    numbers = [each.getsockname()[1] for each in reserved]
    assert cluster._listed(reserved) == ",".join(map(str, numbers))
    for each in reserved:
        each.close()
