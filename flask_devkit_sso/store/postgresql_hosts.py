"""Which of several PostgreSQL servers to try first.

psycopg waits two seconds for an address that swallows packets, as that of a host that has lost its
power does. This is longer than a call may take.
"""

from __future__ import annotations

import os
import selectors
import socket
import time
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any, Final, NamedTuple, cast

_ENOUGH: Final = 0.25
"""Seconds after which addresses that have not responded go last, if another one has responded."""

_LIMIT: Final = 0.7
"""Seconds after which they do so in any case."""


class _Address(NamedTuple):
    host: str
    address: str
    port: str


def responding_first(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters for libpq with which it tries those addresses first that respond.

    They are in the order of the URL. If there is only one address, nothing is changed.
    """
    addresses = _resolve(parameters)
    if len(addresses) < 2:
        return dict(parameters)
    responding = _responding(addresses)
    addresses.sort(key=lambda address: address not in responding)
    hosts, numbers, ports = map(",".join, zip(*addresses, strict=True))
    return {**parameters, "host": hosts, "hostaddr": numbers, "port": ports}


def _resolve(parameters: Mapping[str, Any]) -> list[_Address]:
    """Return the addresses that parameters name, or an empty list if libpq has to find them."""
    hosts = _list(parameters.get("host") or os.environ.get("PGHOST"))
    numbers = _list(parameters.get("hostaddr") or os.environ.get("PGHOSTADDR")) or hosts
    hosts = hosts or numbers
    ports = _list(parameters.get("port") or os.environ.get("PGPORT") or "5432")
    ports *= len(hosts) if len(ports) == 1 else 1
    if not len(hosts) == len(numbers) == len(ports):
        return []
    if not all(ports) or not all(number and number[0] not in "/@" for number in numbers):
        # Sockets in folders, or a default of libpq.
        return []
    found = []
    for host, number, port in zip(hosts, numbers, ports, strict=True):
        try:
            known = socket.getaddrinfo(number, port, type=socket.SOCK_STREAM)
        except OSError:
            continue
        found += [_Address(host or number, str(one[4][0]), port) for one in known]
    return found


def _list(text: Any) -> list[str]:
    return str(text).split(",") if text else []


def _responding(addresses: list[_Address]) -> set[_Address]:
    """Return the addresses that accept a TCP connection soon."""
    responding: set[_Address] = set()
    began = time.monotonic()
    with ExitStack() as stack, selectors.DefaultSelector() as selector:
        for address in addresses:
            family = socket.AF_INET6 if ":" in address.address else socket.AF_INET
            try:
                one = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
                one.setblocking(False)
                one.connect_ex((address.address, int(address.port)))
                selector.register(one, selectors.EVENT_WRITE, address)
            except (OSError, ValueError):
                continue
        while selector.get_map():
            limit = _ENOUGH if responding else _LIMIT
            ready = selector.select(max(0.0, began + limit - time.monotonic()))
            if not ready:
                break
            for key, _ in ready:
                one = cast("socket.socket", key.fileobj)
                selector.unregister(one)
                if one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
                    responding.add(key.data)
    return responding
