"""What a browser, or somebody with curl, can send to the application."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote_to_bytes, urlsplit

from hypothesis import strategies as st
from werkzeug.wrappers import Request

from ..scripted import ScriptedServer
from ..web import test_urls
from .mutations import Mutation, Repeated, mutations
from .running import Target
from .site import CODE, Site

PARAMETERS = [
    b"code=<CODE>",
    b"&",
    b"=",
    b"?",
    b"#",
    b"code=",
    b"state=<STATE>",
    b"state=",
    b"&state=x",
    b"s=<STATE>",
    b"&s=",
    b"error=access_denied",
    b"error=",
    b"&iss=http://127.0.0.1",
    b"<STATE>",
    b"<CODE>",
]
SITES = ("state", "redirect_uri", "confirm")
ADDRESSES = [
    b"/",
    b"/private?a=1&b=%C3%A9#part",
    b"//evil.example",
    b"/\\evil.example",
    b"https://evil.example/",
    b"http://localhost/private",
    b"http://localhost@evil.example/",
    b"http://localhost.evil.example/",
    b"http:evil.example",
    b"http:///evil.example",
    b"/sso/logout",
    b"/sso//logout",
    b"/sso/./logout",
    b"/SSO/logout",
    b"/private;/../../sso/logout",
    b"javascript:alert(1)",
    b"data:text/html,x",
    b"?next=/",
    b"#hash",
    "/报告/王小明".encode(),
    b"/list?f[]=1&g={a|b}#/c[1]",
    b"http://localhost?a#b",
    b"http://localhost//evil.example",
    b"http://localhost/sso//logout",
    b"/app//sso/logout",
    b"/?code=x#/login?error=y",
    Repeated(b"x", 1500, b"/private?a#"),
]
PIECES = [
    *(b"/", b"//", b"\\", b"..", b".", b"%2f", b"%5c", b"%2e%2e", b"@", b":", b"?", b"#", b";"),
    *(b"%2e", b"%00", b"%0d%0a", b"%ff", b"%c0%af", b"%ef%bf%bd", b"\xef\xbf\xbd", b"\xed\xa0\x80"),
    *(b"[", b"|", b"'", b"&", b"+", b"%25", b"%252e", b"\xef\xbc\x8f", b"http://localhost", b"sso"),
]
PATHS = [
    b"/who",
    b"/private",
    b"/",
    b"/login-url",
    b"/sso/authorize",
    b"/sso/callback",
    b"/sso/confirm",
    b"/sso/logout",
    b"/sso/signed-out",
    b"/sso/landing.js",
    b"/sso/me",
    b"/sso/verify",
    b"/sso/onward",
    b"/sso/static/x",
]
OURS = {path for path in PATHS if path.startswith(b"/sso/")}
LANGUAGES = [
    b"zh-CN,zh;q=0.9,en;q=0.8",
    b"en",
    b"*",
    b"zh-Hant-TW;q=1",
    b"de;q=0.5,fr;q=nan",
    b"q=1",
]
HEADERS = {
    "accept_language": LANGUAGES,
    "accept": [b"text/html", b"application/json;q=0.9,*/*;q=nan", b"text/*;level=1;q=inf", b";q="],
    "host": [b"localhost", b"127.0.0.1:80", b"[::1]:5000", b"evil.example", b"[", b"a:b:c", b"@:0"],
    "origin": [b"http://localhost", b"null", b"https://evil.example", b"HTTP://LOCALHOST:80"],
    "referer": [b"http://localhost/private", b"http://localhost.evil.example/", b"http://[/", b"x"],
    "hx_current_url": [b"http://localhost/private#a", b"http://[::1/", b"//evil.example/"],
    "sec_fetch_site": [b"same-origin", b"same-site", b"cross-site", b"none", b"SAME-ORIGIN"],
    "sec_fetch_dest": [b"document", b"iframe", b"empty", b""],
    "x_requested_with": [b"XMLHttpRequest"],
    "x_devkit_sso_passive": [b"1", b"0"],
    "x_original_uri": [b"/private", b"//evil.example/", b"http://evil.example/"],
    "x_forwarded_uri": [b"/private?a=1", b"/sso/logout"],
    "content_type": [b"application/json", b"application/json; charset=utf-16", b"text/plain", b";"],
    "authorization": [b"Bearer x", b"Basic \xff", b"Digest a=b, c"],
}


@contextmanager
def request_targets(folder: Path) -> Iterator[list[Target]]:
    """Yield the targets that send requests to applications, which share one server."""
    server = ScriptedServer()
    sites = {binding: Site(server, folder / binding, binding=binding) for binding in SITES}
    sites["fragment"] = Site(
        server, folder / "fragment", redirect_uri="http://localhost/#/login", pkce=True
    )
    yield [
        Target("callback query", _CALLBACKS, lambda value: check_callback(sites, *value)),
        Target("POST body", _POSTS, lambda value: check_post(sites["fragment"], *value)),
        Target("cookies", _COOKIES, Cookies(sites).check),
        Target("addresses", mutations(ADDRESSES, PIECES), check_address),
        Target("next", _NEXTS, Addresses(sites).check),
        Target("headers", _REQUESTS, Requests(sites, list(HEADERS)).check),
        Target("Accept-Language", _REQUESTS, Requests(sites, ["accept_language"]).check),
    ]
    server.stop()


_CALLBACKS = st.tuples(
    st.sampled_from(SITES),
    st.booleans(),
    mutations(
        [
            b"code=<CODE>&state=<STATE>",
            b"s=<STATE>?code=<CODE>",
            b"s=<STATE>&code=<CODE>&state=",
            b"code=<CODE>",
            b"error=access_denied&error_description=a+b&state=<STATE>",
            b"state=<STATE>",
        ],
        PARAMETERS,
    ),
)


def check_callback(sites: dict[str, Site], binding: str, has_login: bool, query: Mutation) -> None:
    """Only a browser with a login may be signed in, and only with that login's own proof."""
    site = sites[binding]
    cookie, proof = site.start()
    sent = query.apply(CODE=CODE, STATE=proof)
    text = sent.translate(None, b"\0\r\n").decode(errors="replace")
    found = parse_qs(text.replace("?", "&") if binding == "redirect_uri" else text)
    name, other = ("s", "state") if binding == "redirect_uri" else ("state", "")
    is_proven = found.get(name) == [proof] and not any(found.get(other, []))
    has_code = len(found.get("code", [])) == 1 and "error" not in found
    may_sign_in = has_login and is_proven and has_code
    response = site.request(
        "/sso/callback",
        query=sent,
        cookie=cookie if has_login else "",
        may_sign_in=may_sign_in and binding != "confirm",
    )
    assert response.status_code in (303, 400, 403, 502, 503), response.status
    assert CODE not in response.text, sent
    if response.status_code == 303 and binding == "confirm":
        assert has_login, sent
        assert response.location.startswith("/sso/confirm?"), sent


_POSTS = st.tuples(
    st.booleans(),
    st.sampled_from(["same-origin", "cross-site", "none", ""]),
    mutations([b"application/json", b"application/json; charset=utf-16", b"text/plain", b""]),
    mutations(
        [
            b'{"code":["<CODE>"],"error":[],"state":["<STATE>"],"s":[],"login":"","hash":"#/a?b"}',
            b'{"code":["<CODE>"],"state":["<STATE>"]}',
            b'{"error":["access_denied"],"state":["<STATE>"]}',
            b"[]",
            b"code=<CODE>&state=<STATE>",
            b'{"code":["<CODE>"],"state":["<STATE>"],"state":["x"]}',
        ],
        [
            b'"state":["<STATE>"],',
            b'"<STATE>",',
            Repeated(b"[", 100_000),
            Repeated(b" ", 40_000),
            Repeated(b"9", 5_000),
            b"null",
            b"NaN",
            b'"\\ud800"',
            b'"\\u0000"',
            b'"//evil.example/"',
            b'"hash":"#',
        ],
    ),
)


def check_post(
    site: Site, has_login: bool, fetch_site: str, content_type: Mutation, body: Mutation
) -> None:
    """Only a script of this site may complete a login, and only with that login's own state."""
    cookie, proof = site.start()
    sent = body.apply(CODE=CODE, STATE=proof)
    try:
        fields = json.loads(sent)
        is_proven = fields["state"] == [proof]
    except (ValueError, TypeError, LookupError, RecursionError):
        is_proven = False
    response = site.request(
        "/sso/callback",
        method="POST",
        body=sent,
        cookie=cookie if has_login else "",
        content_type=content_type.apply(),
        sec_fetch_site=fetch_site,
        may_sign_in=has_login and is_proven and fetch_site == "same-origin",
    )
    assert response.status_code in (200, 400, 403, 502, 503), response.status
    assert CODE not in response.text
    if response.status_code == 200:
        assert site.is_allowed(response.json["next"]), response.text


_COOKIES = st.tuples(
    st.sampled_from([*SITES, "fragment"]),
    st.sampled_from(PATHS),
    st.sampled_from([b"", b"code=<CODE>&state=<STATE>", b"login=<NAME>", b"lost=1", b"next=/a"]),
    mutations(
        [
            b"<SESSION>=<ADA>",
            b"<SESSION>=<ADA>; <LOGIN>=<PENDING>",
            b"<LOGIN>=<PENDING>",
            b"<SESSION>=; <SESSION>=<ADA>",
            b"<SESSION>_pass_x=2; <SESSION>=<ADA>",
        ],
        [
            b"<ADA>",
            b"<PENDING>",
            b"<SESSION>",
            b"<SESSION>=",
            b"<LOGIN>=",
            b";",
            b'"',
            b"\\073",
            b"=",
            b".",
            b"__Host-",
            b",",
        ],
    ),
)


class Cookies:
    """Only the session's own cookie signs anybody in, and only the login's own completes it."""

    def __init__(self, sites: dict[str, Site]) -> None:
        self._sites = sites
        self._ada = sites["state"].sign_in().partition("=")[2]

    def check(self, value: tuple[str, bytes, bytes, Mutation]) -> None:
        name, path, query, mutation = value
        site = self._sites[name]
        cookie, proof = site.start()
        # Starting a login may set other cookies as well.
        login, _, pending = cookie.partition(";")[0].partition("=")
        # Every site but the first has another installation, so its sessions are unknown there.
        sent = mutation.apply(
            SESSION=site.session_cookie, ADA=self._ada, LOGIN=login, PENDING=pending
        )
        found = Request({"HTTP_COOKIE": sent.translate(None, b"\0\r\n").decode("latin-1")}).cookies
        is_ada = self._ada in found.getlist(site.session_cookie)
        response = site.request(
            path,
            query=Mutation(query).apply(CODE=CODE, STATE=proof, NAME=login[-8:]),
            cookie=sent,
            may_sign_in=pending in found.getlist(login) and b"state" in query,
        )
        if not is_ada:
            assert response.status_code != 204, sent
            # Her name as a word: random values contain its three letters now and then.
            assert not re.search(r"\bada\b", response.text), sent
            assert path != b"/private" or response.status_code in (302, 401), sent


def check_address(value: Mutation) -> None:
    """Without an application, so that many more addresses are judged."""
    address = value.apply()
    for text in (address.decode("latin-1"), address.decode(errors="surrogateescape")):
        test_urls.check(text)
        test_urls.check(text.replace("http://localhost", test_urls.ORIGIN))


_NEXTS = st.tuples(
    st.sampled_from([*SITES, "fragment"]),
    mutations([b"next=" + address for address in ADDRESSES], [*ADDRESSES, *PIECES, b"next="]),
    st.booleans(),
)


class Addresses:
    """A login returns only to a page of the application."""

    def __init__(self, sites: dict[str, Site]) -> None:
        self._sites = sites
        self._cookies = {"state": sites["state"].sign_in()}

    def check(self, value: tuple[str, Mutation, bool]) -> None:
        name, mutation, is_encoded = value
        query = mutation.apply()
        if is_encoded:
            query = b"next=" + quote(query.removeprefix(b"next=")).encode()
        if b"lost" not in query:
            location = self._next_of(query)
            # Judging an address that was returned does not change it.
            assert self._next_of(b"next=" + quote(location).encode()) == location
        site, raw = self._sites[name], query[5:]
        site.request("/sso/authorize", query=query)
        onward = site.request("/sso/onward", query=b"to=" + raw)
        assert onward.status_code == 303, onward.status
        assert site.is_allowed(onward.location), onward.location
        login_urls = [
            site.request("/login-url", hx_current_url=raw, hx_request="true", referer=raw).text,
            site.request("/login-url", sec_fetch_dest="empty", referer=raw).text,
            site.request("/login-url", query=raw).text,
            site.request("/private", hx_current_url=raw, accept="*/*").json["login_url"],
        ]
        for login_url in login_urls:
            for address in parse_qs(urlsplit(login_url).query).get("next", []):
                assert site.is_allowed(address), login_url
                assert_leads_to_a_page(address)

    def _next_of(self, query: bytes) -> str:
        """Return the page that an address leads to in a browser that is signed in."""
        response = self._sites["state"].request(
            "/sso/authorize", query=query, cookie=self._cookies["state"]
        )
        assert response.status_code == 303, response.status
        assert_leads_to_a_page(response.location)
        location: str = response.location
        return location


def assert_leads_to_a_page(address: str) -> None:
    assert address.startswith("/"), address
    assert re.fullmatch(r"/(?!/)(?:[\w\-.~!$&'()*+,;=:@/?#]|%[0-9a-fA-F]{2})*", address, re.ASCII)
    path = unquote_to_bytes(re.split("[?#]", address)[0])
    assert not re.match(rb"//|/\\", path), address
    path.decode()
    segments = [part for part in path.split(b"/") if part not in (b"", b".")]
    assert b".." not in segments, address
    assert b"/" + b"/".join(segments) not in OURS, address


WORDS = [b",", b";q=", b";q=nan", b";q=1e999", b"-", b"en", b"zh", b":", Repeated(b"x", 9000)]
_REQUESTS = st.tuples(
    st.sampled_from([*SITES, "fragment"]),
    st.sampled_from(["GET", "GET", "POST", "HEAD", "PUT", "OPTIONS"]),
    mutations(PATHS, [*PIECES, b"/sso"]),
    st.booleans(),
    st.lists(
        st.tuples(
            st.integers(0, 100),
            st.integers(0, 100),
            mutations([b""], WORDS),
        ),
        min_size=1,
        max_size=3,
    ),
    mutations([b"", b"outcome=x", b"login=x", b"next=/", b"to=/"], PARAMETERS),
    mutations([b"", b"answer=yes", b"answer=no"]),
)


class Requests:
    """Whatever a request is, its response is a documented one, in English or Chinese."""

    def __init__(self, sites: dict[str, Site], names: list[str]) -> None:
        self._sites = sites
        self._names = names

    def check(self, value: tuple[str, str, Mutation, bool, list[Any], Mutation, Mutation]) -> None:
        site_name, method, path, is_known_path, choices, query, body = value
        site = self._sites[site_name]
        headers: dict[str, Any] = {}
        for which, sample, change in choices:
            name = self._names[which % len(self._names)]
            samples = HEADERS[name]
            headers[name] = Mutation(samples[sample % len(samples)], change.changes).apply()
        sent_path = path.sample if is_known_path else path.apply()
        response = site.request(
            sent_path,
            method=method,
            query=query.apply(CODE=CODE, STATE="x"),
            body=body.apply(),
            **headers,
        )
        if language := response.headers.get("Content-Language"):
            assert language in ("en", "zh"), language
