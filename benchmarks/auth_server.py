"""An authentication server that responds at once, in a process of its own, and counts its calls.

``python -m benchmarks.auth_server [MILLISECONDS]`` prints its port. It delays each response by the
given time. It accepts every code, and derives the tokens and the user from it, so that a mix-up
shows. Besides the protocol of this package, it speaks plain OAuth 2.0 below ``/oauth2``, for
libraries that speak nothing else.

The sandbox would take longer than what is measured.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from urllib.parse import parse_qs


class Counts(NamedTuple):
    """What a server has received since its start."""

    connections: int
    calls: int


@contextmanager
def auth_server(milliseconds: int = 0) -> Iterator[str]:
    """Run a server while the ``with`` block runs; yields its URL."""
    command = [sys.executable, "-m", __name__, str(milliseconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        finally:
            process.terminate()


def read_counts(url: str) -> Counts:
    """Return what a server has received, apart from calls of this function."""
    with urllib.request.urlopen(f"{url}/counts", timeout=10) as response:
        return Counts(*json.load(response))


class _Server:
    def __init__(self, delay: float) -> None:
        self._delay = delay
        self._connections = 0
        self._calls = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Respond to the requests of one connection."""
        is_counted = False
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                path = head.split(" ", 2)[1]
                headers = _parse_headers(head)
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                if path != "/counts":
                    self._connections += not is_counted
                    self._calls += 1
                    is_counted = True
                    await asyncio.sleep(self._delay)
                status, data = b"200 OK", b""
                try:
                    data = json.dumps(self._respond(path, headers, body.decode())).encode()
                except LookupError:
                    status = b"400 Bad Request"
                writer.write(
                    b"HTTP/1.1 %b\r\nContent-Type: application/json\r\n"
                    b"Content-Length: %d\r\n\r\n%b" % (status, len(data), data)
                )
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def _respond(self, path: str, headers: dict[str, str], body: str) -> Any:
        """Return the JSON of the response to a call.

        :raises LookupError: for a call that makes no sense.
        """
        match path:
            case "/sso/oauth2/getToken":
                return _envelope(_tokens(json.loads(body)["authorization_code"]))
            case "/sso/oauth2/getUserInfo":
                return _envelope(_user(json.loads(body)["access_token"]))
            case "/oauth2/token":
                return _tokens(parse_qs(body)["code"][0]) | {"token_type": "Bearer"}
            case "/oauth2/userinfo":
                return _user(headers["authorization"].removeprefix("Bearer "))
            case "/counts":
                return self._connections, self._calls
        raise LookupError


def _parse_headers(head: str) -> dict[str, str]:
    lines = (line.partition(": ") for line in head.split("\r\n")[1:])
    return {name.lower(): value for name, _, value in lines}


def _envelope(data: dict[str, Any]) -> dict[str, Any]:
    return {"code": "2000", "message": "OK", "messageArgs": [], "data": data}


def _tokens(code: str) -> dict[str, Any]:
    return {
        "access_token": f"access-{code}",
        "expires_in": 3600,
        "refresh_token": f"refresh-{code}",
    }


def _user(access_token: str) -> dict[str, str]:
    code = access_token.removeprefix("access-")
    return {"uid": f"u-{code}", "username": code, "role": "User"}


async def _run(delay: float) -> None:
    server = await asyncio.start_server(_Server(delay).serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_run(float(sys.argv[1]) / 1000))
