"""TCP connections to a host with several addresses (RFC 8305, "Happy Eyeballs").

If the first address swallows packets, as a firewall or a dead node of a cluster does, waiting for
it would take until the deadline of the call. So the next address is tried a moment later, and the
first connection that opens is used. Nothing is sent on the others.
"""

from __future__ import annotations

import errno
import os
import selectors
import socket
import time
from collections.abc import Iterable, Sequence
from itertools import chain, zip_longest
from typing import Any, Final, NamedTuple

STAGGER: Final = 0.25
"""Seconds after which the next address is tried (RFC 8305 section 5)."""

MAX_ADDRESSES: Final = 6
"""How many addresses of a host are tried."""


LATE: Final = 0.5
"""If a thread wakes up more than this many seconds after its deadline, the process was paused, as a
virtual machine is when it moves. The response may have arrived by then, and what it contains can
often not be requested again: new tokens, for instance. So the call has as many seconds more to read
it."""


class Address(NamedTuple):
    """An address of a host, as ``socket.getaddrinfo`` returns it."""

    family: int
    sockaddr: Any

    @property
    def ip(self) -> str:
        """The IP address."""
        return str(self.sockaddr[0])


def resolve(host: str, port: int) -> list[Address]:
    """Return the addresses of a host in the order in which to try them: IPv6 and IPv4 in turn (RFC
    8305 section 4).

    :raises socket.gaierror: if there are none.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError:
        # A label is empty or too long.
        raise socket.gaierror(socket.EAI_NONAME, "not a host name") from None
    addresses = list(dict.fromkeys(Address(family, sockaddr) for family, *_, sockaddr in found))
    first = [address for address in addresses if address.family == addresses[0].family]
    others = [address for address in addresses if address.family != addresses[0].family]
    in_turn = chain.from_iterable(zip_longest(first, others))
    return [address for address in in_turn if address is not None][:MAX_ADDRESSES]


def connect(
    addresses: Sequence[Address], seconds: float, *, options: Iterable[tuple[Any, ...]] = ()
) -> socket.socket:
    """Return the first connection that opens. Its timeout is ``seconds``, too.

    :param options: socket options, as arguments of ``setsockopt``.
    :raises TimeoutError: if none has opened in time.
    :raises OSError: if all have failed.
    """
    now = time.monotonic()
    deadline, next_start = now + seconds, now
    waiting, failure = list(addresses), OSError(errno.EADDRNOTAVAIL, "no address")
    opening: set[socket.socket] = set()
    with selectors.DefaultSelector() as selector:
        try:
            while waiting or opening:
                now = time.monotonic()
                if now >= deadline:
                    raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
                if waiting and (now >= next_start or not opening):
                    try:
                        sock = _begin(waiting.pop(0), options)
                    except OSError as error:
                        failure = error
                        continue
                    opening.add(sock)
                    selector.register(sock, selectors.EVENT_WRITE)
                    next_start = now + STAGGER
                until = min(deadline, next_start) if waiting else deadline
                for key, _ in selector.select(max(0, until - time.monotonic())):
                    sock = key.fileobj  # type: ignore[assignment]
                    selector.unregister(sock)
                    opening.discard(sock)
                    code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                    if code == 0:
                        sock.settimeout(seconds)
                        return sock
                    sock.close()
                    # The next address need not wait for one that has failed.
                    failure, next_start = OSError(code, os.strerror(code)), 0
        finally:
            for sock in opening:
                sock.close()
    raise failure


def _begin(address: Address, options: Iterable[tuple[Any, ...]]) -> socket.socket:
    """Return a socket that is connecting."""
    sock = socket.socket(address.family, socket.SOCK_STREAM)
    try:
        for option in options:
            sock.setsockopt(*option)
        sock.setblocking(False)
        code = sock.connect_ex(address.sockaddr)
        if code not in (0, errno.EINPROGRESS, errno.EWOULDBLOCK):
            raise OSError(code, os.strerror(code))
    except BaseException:
        sock.close()
        raise
    return sock
