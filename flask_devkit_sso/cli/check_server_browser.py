"""A browser without JavaScript that opens pages of one server, for ``check-server --as``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from email.message import Message
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Final
from urllib.parse import SplitResult, urlencode, urljoin, urlsplit
from urllib.request import Request

from ..config.redirect_uri import is_loopback
from ..errors import ServerError, ServerUnavailable
from ..protocol.contract import RawResponse
from ..protocol.transport import Transport
from .check_server_authorize import parse_redirect
from .check_server_forms import Content, Unreadable, parse_page
from .findings import describe_error

MAX_PAGES: Final = 10
"""Maximum number of responses to read on the way to the redirect URI."""

_FORM: Final = "application/x-www-form-urlencoded"
_NAVIGATION: Final = {
    "Accept": "text/html,application/xhtml+xml",
    "Sec-Fetch-Dest": "document",
    "Sec-Fetch-Mode": "navigate",
}


class Stopped(Exception):
    """The browser goes no further.

    :ivar text: why, in our own words.
    :ivar fix: what to do about it.
    :ivar is_unreachable: whether the server did not respond, so that this is no refusal.
    """

    def __init__(self, text: str, fix: str = "", *, is_unreachable: bool = False) -> None:
        super().__init__(text)
        self.text = text
        self.fix = fix
        self.is_unreachable = is_unreachable


class NoForm(Stopped):
    """The page has no form to go on with."""


@dataclass(frozen=True)
class Page:
    url: str = field(repr=False)
    status: int
    content: Content = field(repr=False)


@dataclass(frozen=True)
class Submission:
    """What a form sends, and where to. A link is a submission without fields, by GET."""

    address: str = field(repr=False)
    method: str
    fields: Sequence[tuple[str, str]] = field(repr=False)


class Browser:
    """Cookies, and the only origin that they are sent to: that of authorize.

    :raises Stopped: if the server uses http and is not on this machine.
    """

    def __init__(self, transport: Transport, authorize_url: str) -> None:
        parts = urlsplit(authorize_url)
        if parts.scheme != "https" and not is_loopback(parts.hostname):
            raise Stopped(
                "uses http, so others could read what --as types into the form",
                "Use https, or run the command on the server's own machine",
            )
        self.transport = transport
        self.origin = f"{parts.scheme}://{parts.netloc}"
        # As browsers do, accept a Secure cookie over http on loopback.
        policy = DefaultCookiePolicy(secure_protocols=("https", "http"))
        self._cookies = CookieJar(policy)

    def serves(self, parts: SplitResult) -> bool:
        return _origin(parts) == _origin(urlsplit(self.origin))

    def cookie_header(self, url: str) -> dict[str, str]:
        request = Request(url)  # noqa: S310 - it is not opened
        self._cookies.add_cookie_header(request)
        cookies = request.get_header("Cookie")
        return {"Cookie": cookies} if cookies else {}

    def keep_cookies(self, url: str, response: RawResponse) -> None:
        self._cookies.extract_cookies(_Headers(response), Request(url))  # type: ignore[arg-type]  # noqa: S310


class Visit:
    """One way from authorize to the redirect URI, which itself is never requested.

    :ivar has_submitted: whether the server has responded to a form or a link of a page.
    :raises Stopped: from each method, if the way ends elsewhere.
    """

    def __init__(self, browser: Browser, redirect_uri: str) -> None:
        self._browser = browser
        self._redirect_uri = redirect_uri
        self._page_count = 0
        self.has_submitted = False

    def open(self, url: str) -> Page | str:
        """Open a URL. Return the page, or the address to which the server redirects back."""
        return self._request(url, None, {"Sec-Fetch-Site": "none"})

    def submit(self, page: Page, submission: Submission) -> Page | str:
        """Submit a form, or follow a link, of a page. Return as :meth:`open` does."""
        found = self._submit(page, submission)
        self.has_submitted = True
        return found

    def _submit(self, page: Page, submission: Submission) -> Page | str:
        address = _join(_join(page.url, page.content.base), submission.address)
        headers = {"Sec-Fetch-Site": "same-origin", "Referer": page.url.partition("?")[0]}
        encoded = urlencode(submission.fields)
        if submission.method == "post":
            headers |= {"Origin": self._browser.origin, "Content-Type": _FORM}
            return self._request(address, encoded.encode(), headers)
        if encoded:
            address = f"{address.partition('#')[0].partition('?')[0]}?{encoded}"
        return self._request(address, None, headers)

    def _request(self, address: str, body: bytes | None, headers: dict[str, str]) -> Page | str:
        while True:
            if self._is_back(address):
                return address
            url = self._allowed_url(address)
            response = self._send(url, body, headers)
            if response.status >= 500:
                text = f"fails (HTTP {response.status})"
                raise Stopped(text, "Read the server's log")
            if not (300 <= response.status <= 399 and response.headers.get("Location")):
                return Page(url, response.status, _parse(response))
            address = _join(url, response.headers["Location"])
            if body is not None and response.status not in (307, 308):
                body = None
                headers = {name: headers[name] for name in headers if name != "Content-Type"}
            if body is not None and self._is_back(address):
                raise Stopped(
                    f"redirects with HTTP {response.status}, which makes a browser send the "
                    "sign-in form to the redirect_uri",
                    "Use 302 or 303",
                )

    def _is_back(self, address: str) -> bool:
        ours, theirs = urlsplit(self._redirect_uri), _split(address)
        is_same = _origin(ours) == _origin(theirs) and (ours.path or "/") == (theirs.path or "/")
        return is_same or parse_redirect(address, self._redirect_uri) is not None

    def _allowed_url(self, address: str) -> str:
        """Return the URL to request for an address.

        It begins with authorize's own scheme and host, so that nobody reads another one into it.
        """
        parts = _split(address)
        if not self._browser.serves(parts):
            raise Stopped(
                "leads to another host, scheme or port than authorize's, where --as sends nothing",
                "Serve the sign-in page where authorize is, or run the command without --as",
            )
        path = parts.path if parts.path.startswith("/") else "/"
        return f"{self._browser.origin}{path}" + (f"?{parts.query}" if parts.query else "")

    def _send(self, url: str, body: bytes | None, headers: dict[str, str]) -> RawResponse:
        if self._page_count == MAX_PAGES:
            raise Stopped(f"does not redirect back within {MAX_PAGES} responses")
        self._page_count += 1
        browser = self._browser
        sent = _NAVIGATION | headers | browser.cookie_header(url)
        try:
            if body is None:
                response = browser.transport.get(url, headers=sent)
            else:
                response = browser.transport.post(url, body, headers=sent)
        except (ServerError, ServerUnavailable) as error:
            raise Stopped(describe_error(error), is_unreachable=True) from None
        browser.keep_cookies(url, response)
        return response


class _Headers:
    """What http.cookiejar needs of a response."""

    def __init__(self, response: RawResponse) -> None:
        self._headers = response.headers

    def info(self) -> Message:
        return self._headers


def _parse(response: RawResponse) -> Content:
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind not in ("text/html", "application/xhtml+xml"):
        return Content()
    try:
        return parse_page(response.body.decode("utf-8", "replace"))
    except Unreadable as error:
        raise Stopped(str(error)) from None


def _split(address: str) -> SplitResult:
    try:
        parts = urlsplit(address)
        _ = parts.port
    except ValueError:
        raise Stopped("sends an address that is not a URL") from None
    return parts


def _join(base: str, address: str) -> str:
    try:
        return urljoin(base, address.strip())
    except ValueError:
        raise Stopped("sends an address that is not a URL") from None


def _origin(parts: SplitResult) -> tuple[str, str | None, int | None]:
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, parts.hostname, port
