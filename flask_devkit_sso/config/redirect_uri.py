"""Which addresses belong to the redirect URI."""

from __future__ import annotations

import ipaddress
from functools import cached_property
from urllib.parse import SplitResult, unquote, urlsplit


class RedirectURI:
    """A redirect URI, which is sent to the server byte for byte.

    :param uri: an absolute http(s) URL that has been validated.
    :param callback_path: the path of the callback route, without the path of a mount point.
    """

    def __init__(self, uri: str, callback_path: str) -> None:
        self.uri = uri
        self._callback_path = callback_path
        self._parts = urlsplit(uri)

    @property
    def host(self) -> str | None:
        """The host name or address, without the port."""
        return self._parts.hostname

    @cached_property
    def path(self) -> str:
        """The decoded path."""
        return unquote(self._parts.path)

    @property
    def is_secure(self) -> bool:
        """Whether browsers use https, so that cookies can be ``Secure``."""
        return self._parts.scheme == "https"

    @property
    def netloc(self) -> str:
        """Host and port as browsers send them in ``Host``: without a default port."""
        return self.origin.partition("://")[2]

    @property
    def site(self) -> str:
        """Scheme, host and port as they are written in the URI."""
        return f"{self._parts.scheme}://{self._parts.netloc}"

    @property
    def origin(self) -> str:
        """The origin as browsers write it: in lower case and without a default port."""
        return _origin(self._parts)

    def shares_origin(self, url: str | None) -> bool:
        """Return whether another URL has the redirect URI's origin."""
        return url is not None and _origin(urlsplit(url)) == self.origin

    @property
    def is_callback(self) -> bool:
        """Whether the path is that of the callback, and not a page of the application."""
        return self.path.endswith(self._callback_path)

    @cached_property
    def needs_landing(self) -> bool:
        """Whether the landing page has to read the authorization response: it may be in the
        fragment, which browsers do not send, or the path is not that of the callback."""
        return "#" in self.uri or not self.is_callback

    @property
    def lands_on_application(self) -> bool:
        """Whether the landing page is needed at a path that belongs to the application."""
        return self.needs_landing and not self.is_callback

    def lands_on(self, path: str) -> bool:
        """Return whether a path is that of the redirect URI, and the landing page is needed
        there."""
        # Ignore a final slash: Flask may redirect to a path with or without one, and the browser
        # would carry the fragment along.
        return self.needs_landing and path.rstrip("/") == self.path.rstrip("/")

    def mount_point(self, application_root: str) -> str:
        """Return the path below which the application is mounted, or "" if the URI does not show
        it: if the path is that of a page, only Flask's APPLICATION_ROOT can tell."""
        if self.is_callback:
            mount = self.path.removesuffix(self._callback_path)
        else:
            root = application_root.rstrip("/")
            mount = root if f"{self.path}/".startswith(f"{root}/") else ""
        return "" if mount[1:2] in ("/", "\\") else mount

    def is_at_other_host(self, host: str | None) -> bool:
        """Return whether a login that starts at a host cannot be completed at the redirect URI.

        Browsers keep separate cookies for ``localhost`` and ``127.0.0.1``, and for
        ``www.example.com`` and ``example.com``. If only one of the two hosts is this machine, a
        proxy has changed the host, or the request is a test's.
        """
        return self.host != host and is_loopback(self.host) == is_loopback(host)


def _origin(parts: SplitResult) -> str:
    default_port = ":443" if parts.scheme == "https" else ":80"
    return f"{parts.scheme}://{parts.netloc}".lower().removesuffix(default_port)


def is_loopback(host: str | None) -> bool:
    """Return whether a host name or address (without a port) is this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False
