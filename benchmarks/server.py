"""An authentication server that answers at once, in a process of its own, and counts its calls.

``python -m benchmarks.server [MILLISECONDS]`` prints its port. Each answer is delayed by the given
time. It accepts every code and returns tokens and a user that are derived from it.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

counts = {"connections": 0, "calls": 0, "failed": 0}


def answer(path: str, body: dict[str, str]) -> dict[str, Any]:
    """Return the data of the response to one call."""
    match path.rpartition("/")[2]:
        case "getToken":
            code = body["authorization_code"]
            return {
                "access_token": f"access-{code}",
                "refresh_token": f"refresh-{code}",
                "expires_in": 3600,
            }
        case "getUserInfo":
            uid = body["access_token"].removeprefix("access-")
            return {"uid": uid, "username": f"user-{uid}", "role": "User"}
        case "counts":
            return dict(counts)
    return {}


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: float) -> None:
    """Answer the requests of one connection."""
    is_counted = False
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            path = head.split(" ", 2)[1]
            headers = dict(
                line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line
            )
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            if path != "/counts":
                counts["connections"] += not is_counted
                counts["calls"] += 1
                is_counted = True
                if delay:
                    await asyncio.sleep(delay)
            envelope = {
                "code": "2000",
                "message": "OK",
                "messageArgs": [],
                "data": answer(path, json.loads(body or b"{}")),
            }
            data = json.dumps(envelope).encode()
            writer.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: "
                + str(len(data)).encode()
                + b"\r\n\r\n"
                + data
            )
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    except (ValueError, LookupError):
        counts["failed"] += 1
    finally:
        writer.close()


async def main() -> None:
    """Serve until the process is terminated."""
    delay = float(sys.argv[1]) / 1000 if len(sys.argv) > 1 else 0.0
    server = await asyncio.start_server(
        lambda reader, writer: serve(reader, writer, delay), "127.0.0.1", 0
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
