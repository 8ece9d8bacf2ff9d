"""Which addresses belong to this site. These functions know nothing of requests or settings.

An address is judged by its characters and not by a URL parser, because parsers disagree: what one
reads as a path, another one reads as a host (RFC 9700 section 4.11).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import quote, unquote

MAX_LENGTH: Final = 1500
"""Maximum length of an address to return to, in characters, because it is kept in a cookie."""

_REFUSED: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\\\ufffd\ud800-\udfff]")
"""Control characters, backslashes, and what is left of text that could not be decoded."""

_ENCODED: Final = re.compile(r"%(?![0-9A-Fa-f]{2})|[^A-Za-z0-9\-._~!$&'()*+,;=:@/?#%]")
"""What a URL may contain only percent-encoded (RFC 3986 section 2), and a ``%`` that encodes
nothing."""


def local_url(url: str, origin: str) -> str | None:
    """Return an address of this site as path, query and hash, or None if it may be another one's.

    What is returned is what has been judged. It consists of ASCII characters that neither Werkzeug
    nor a browser takes for anything else or resolves. Everything else is percent-encoded, as UTF-8.

    :param url: a path, with or without a query and a hash, or an absolute URL of this site.
    :param origin: this site's origin, as browsers write it; or "".
    """
    if origin and url.startswith(origin):
        url = url.removeprefix(origin)
        if not url or url[0] in "?#":
            url = f"/{url}"
    if not url.startswith("/") or _REFUSED.search(url):
        return None
    # An empty query or hash is left out, as Werkzeug does in the header Location.
    head, _, fragment = _ENCODED.sub(lambda found: quote(found[0], safe=""), url).partition("#")
    path, _, query = head.partition("?")
    decoded = unquote(path)
    if decoded.startswith("//") or _REFUSED.search(decoded):
        return None
    if not {".", ".."}.isdisjoint(decoded.split("/")):
        return None
    return path + (query and f"?{query}") + (fragment and f"#{fragment}")


def decoded_path(url: str) -> str:
    """Return the path of an address that :func:`local_url` returned, decoded, with each series of
    slashes merged into one, as some servers and proxies do."""
    return re.sub("/+", "/", unquote(re.split(r"[?#]", url, maxsplit=1)[0]))


def contains_response(url: str) -> bool:
    """Return whether an address contains the parameters of an authorization response."""
    return re.search(r"[?&#](code|error)=", url) is not None


def shortened(url: str) -> Iterator[str]:
    """Yield an address, then the same without its hash, then without its query too."""
    head = url.partition("#")[0]
    yield url
    yield head
    yield head.partition("?")[0]
