"""Sends one HTTP request with urllib3, reads the response, and describes what went wrong.

Only calls to the server need urllib3, so protocol/transport.py imports this module at the first
one.
"""

from __future__ import annotations

import ssl
from typing import Final

import urllib3
from urllib3.exceptions import HTTPError

from ..errors import ServerError, ServerUnavailable, unexpected
from .connections import Call, create_pool
from .contract import RawResponse
from .framing import InvalidFraming

MAX_BODY: Final = 1024 * 1024
"""Maximum size of a response's body after decompression, in bytes."""

_USER_AGENT: Final = {"User-Agent": "flask-devkit-sso"}
_HEADERS: Final = {
    "Accept": "application/json",
    "Content-Type": "application/json",
    **_USER_AGENT,
}

_WITHOUT_BODY: Final = (101, 204, 205, 304)

_NAME_MISMATCH: Final = (62, 64)
"""OpenSSL's X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH."""

_RETRY_ONCE: Final = urllib3.Retry(
    total=1, connect=0, redirect=0, status=0, allowed_methods=None, respect_retry_after_header=False
)


class Connections:
    """The connections of one process.

    :param tls: the TLS context for all of them.
    :param size: how many idle ones to keep for each host.
    """

    def __init__(self, tls: ssl.SSLContext, size: int) -> None:
        self._pool = create_pool(tls, size)

    def call(self, deadline: float) -> Call:
        """Return a call that has to end at a deadline, as ``time.monotonic`` counts."""
        return Call(deadline)

    def send(self, call: Call, url: str, body: bytes | None, *, repeatable: bool) -> RawResponse:
        """Send a POST, or a GET without a body, and read the response."""
        time_left = call.start()
        try:
            response = self._pool.request(
                "GET" if body is None else "POST",
                url,
                body=body,
                headers=_USER_AGENT if body is None else _HEADERS,
                timeout=urllib3.Timeout(total=time_left),
                retries=_RETRY_ONCE if repeatable else False,
                # Following a redirect could send a secret to another host.
                redirect=False,
                preload_content=False,
            )
            if response.status in _WITHOUT_BODY:
                # If the server sends a body anyway, the next call must not read it.
                response.close()
            content = _read(response)
            return RawResponse(response.status, content, response.headers, url.partition("?")[0])
        except HTTPError as error:
            # Do not chain the exception, because it may quote what the server sent.
            raise ServerUnavailable(_explain(error, url)) from None
        except (ServerError, ServerUnavailable):
            raise
        except Exception as error:  # noqa: BLE001 - reported by its type and place
            raise unexpected(error) from None
        finally:
            call.stop()


def _read(response: urllib3.BaseHTTPResponse) -> bytes:
    try:
        content = b""
        while chunk := response.read(MAX_BODY + 1 - len(content)):
            content += chunk
            if len(content) > MAX_BODY:
                raise ServerError("The server's response is larger than 1 MiB.")
    except BaseException:
        response.close()
        raise
    finally:
        response.release_conn()
    return content


def _explain(error: HTTPError, url: str) -> str:
    """Describe an error in our own words, because its text may quote what the server sent."""
    if isinstance(error, urllib3.exceptions.MaxRetryError) and isinstance(error.reason, HTTPError):
        error = error.reason
    if error.args and isinstance(error.args[-1], InvalidFraming):
        return f"The server's response has {error.args[-1]}, so it is not valid HTTP."
    match error:
        case urllib3.exceptions.NameResolutionError():
            return "The server's host name is unknown: check DEVKIT_SSO_SERVER_URL."
        case urllib3.exceptions.SSLError():
            cause = error.args[0] if error.args else None
            if isinstance(cause, ssl.SSLCertVerificationError):
                is_for_another = cause.verify_code in _NAME_MISMATCH
                return f"The server's certificate is not accepted ({cause.verify_message}): " + (
                    "its subjectAltName must contain the host of the URL. A common name is not "
                    "enough."
                    if is_for_another
                    else "for a private CA, set DEVKIT_SSO_CA_BUNDLE to its PEM file."
                )
            return "The TLS handshake with the server failed: does it use https on this port?"
        case urllib3.exceptions.NewConnectionError() | urllib3.exceptions.ConnectTimeoutError():
            return "Cannot connect to the server: check DEVKIT_SSO_SERVER_URL, port and firewall."
        case urllib3.exceptions.TimeoutError():
            return "The server did not respond in time."
        case urllib3.exceptions.DecodeError():
            return "The server's response cannot be decompressed."
        case _:
            # Some servers close the connection if the client uses the wrong scheme.
            scheme = url.partition(":")[0]
            return (
                f"The connection to the server broke ({type(error).__name__}): does it use "
                f"{scheme} on this port?"
            )
