"""Which addresses are this site's, as Python functions without a request."""

from __future__ import annotations

import random
import re
from urllib.parse import unquote, urlsplit

import pytest
from playwright.sync_api import Page
from werkzeug.utils import redirect

from flask_devkit_sso.web.urls import local_url

ORIGIN = "https://this.site"
KEPT = {
    "/": "/",
    "/list?f[]=1&g={a|b}^`": "/list?f%5B%5D=1&g=%7Ba%7Cb%7D%5E%60",
    "/报告?q=王 小明#第一章": "/%E6%8A%A5%E5%91%8A?q=%E7%8E%8B%20%E5%B0%8F%E6%98%8E#"
    "%E7%AC%AC%E4%B8%80%E7%AB%A0",
    "/😀": "/%F0%9F%98%80",
    '/a"<b>': "/a%22%3Cb%3E",
    "/100%?q=5%&x=%zz&y=%e4": "/100%25?q=5%25&x=%25zz&y=%e4",
    "/a%20b/%E6%8A%A5": "/a%20b/%E6%8A%A5",
    "/a//b///": "/a//b///",
    "/a/ ": "/a/%20",
    "/ /evil.example": "/%20/evil.example",
    "/@evil.example": "/@evil.example",
    "/...": "/...",
    "/.well-known/x": "/.well-known/x",
    "/a..b/..c": "/a..b/..c",
    "/x?back=//evil.example/../..": "/x?back=//evil.example/../..",
    "/#//evil.example": "/#//evil.example",
    "/#a#b": "/#a#b",
    "/?q=a%0Ab%00%5c%FF": "/?q=a%0Ab%00%5c%FF",
    "/%252e%252e/%255c": "/%252e%252e/%255c",
    "/a?": "/a",
    "/a?#": "/a",
    "/a?#b": "/a#b",
    "/\u2028\u202e": "/%E2%80%A8%E2%80%AE",
    "/／evil.example": "/%EF%BC%8Fevil.example",
    "https://this.site": "/",
    "https://this.site/inbox?a=1#b": "/inbox?a=1#b",
    "https://this.site?a=1": "/?a=1",
    "https://this.site#b": "/#b",
    "https://this.site/https://this.site//": "/https://this.site//",
}
REFUSED = [
    "",
    "inbox",
    "?a=1",
    "#b",
    "//evil.example",
    "///evil.example",
    "////",
    "/%2Fevil.example",
    "/%2f%2Fevil.example",
    "%2F/evil.example",
    "/\\evil.example",
    "\\\\evil.example",
    "\\/evil.example",
    "/%5Cevil.example",
    "/a\\b",
    "/?a\\b",
    "/#a\\b",
    "/a%5cb",
    "https://evil.example/",
    "https:evil.example",
    "https:/evil.example",
    "https:///evil.example",
    "HTTPS://this.site/",
    "http://this.site/",
    "https://this.site.evil.example/",
    "https://this.site@evil.example/",
    "https://this.site:8443/",
    "https://this.site:443/",
    "https://this.sit",
    "https://this.site\\@evil.example",
    "https://this.site//evil.example",
    "https://this.site/%2Fevil.example",
    "https://this.site/\\evil.example",
    "https://this.site\t/",
    " https://this.site/",
    "https://user@this.site/",
    "javascript:alert(1)",
    "data:text/html,x",
    " //evil.example",
    " /a",
    "\t//evil.example",
    "/\t/evil.example",
    "/\n/evil.example",
    "/\r\nSet-Cookie: a=b",
    "/a\0",
    "/a\x1fb",
    "/a\x7fb",
    "/a\x85b",
    "/a?b\x9f",
    "/a%00b",
    "/a%0d%0ab",
    "/a%7Fb",
    "/a%C2%85b",
    "/a\ufffd",
    "/a?\ufffd",
    "/a%EF%BF%BD",
    "/a%FF",
    "/a%C0%AFb",
    "/a%ED%A0%80",
    "/a\ud800",
    "/#\udfff",
    "/.",
    "/..",
    "/./a",
    "/../a",
    "/a/..",
    "/a/.?b",
    "/a/..#b",
    "/..//evil.example",
    "/.//evil.example",
    "/%2e//evil.example",
    "/%2E%2e/a",
    "/.%2e/a",
    "/a%2F..%2Fb",
    "/a%2f%2e",
]


def test_addresses_of_this_site_are_kept() -> None:
    for url, expected in KEPT.items():
        assert local_url(url, ORIGIN) == expected, url
        assert local_url(expected, ORIGIN) == expected, "it does not change again"


def test_other_addresses_are_refused() -> None:
    assert [url for url in REFUSED if local_url(url, ORIGIN) is not None] == []
    # Without an origin no absolute URL is this site's.
    for url in ("", "?a=1", "#b", "https://this.site/", "http:///a", "://a", ":///a"):
        assert local_url(url, "") is None


def check(url: str) -> str | None:
    """Check everything that has to hold for an input, and return what it becomes."""
    found = local_url(url, ORIGIN)
    if found is None:
        return None
    assert re.fullmatch(r"/(?!/)(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/?#]|%[0-9A-Fa-f]{2})*", found), url
    path = unquote(re.split("[?#]", found)[0])
    assert not path.startswith("//"), url
    assert not {".", ".."}.intersection(path.split("/")), url
    assert not re.search(r"[\0-\x1f\x7f-\x9f\\�\ud800-\udfff]", path), url
    assert local_url(found, ORIGIN) == found, url
    # Werkzeug sends exactly this, and a URL parser finds it on this site.
    assert redirect(found).get_wsgi_headers({})["Location"] == found, url
    assert not urlsplit(found).netloc, url
    assert urlsplit(found).path == re.split("[?#]", found)[0], url
    return found


PIECES = [
    *"/\\.%#?@:;&=[]{}|\"'<> \t\r\n\0aZ0报\x7f\x85\xa0\u2028\ufeff\ufffd\ud800\udc00",
    *(
        "//",
        "..",
        "/../",
        "%2f",
        "%2F",
        "%5c",
        "%2e",
        "%2E",
        "%00",
        "%0a",
        "%25",
        "%252e",
        "%c0%af",
    ),
    *("%ff", "%", "%%", ORIGIN, "evil.example", "http:", "https://", "javascript:", "sso"),
]


def generated(count: int) -> list[str]:
    """Return addresses, most of which begin as one of this site does."""
    chance = random.Random(1)
    starts = ["", "/", "/a", "/a?", "/#", ORIGIN, ORIGIN + "/"]
    return [
        chance.choice(starts) + "".join(chance.choices(PIECES, k=chance.randrange(1, 9)))
        for _ in range(count)
    ]


def test_what_has_to_hold_for_every_input() -> None:
    hypothesis = pytest.importorskip("hypothesis")
    st = hypothesis.strategies
    texts = st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=3)), max_size=12)

    @hypothesis.settings(max_examples=200, deadline=None, database=None, derandomize=True)
    @hypothesis.given(st.sampled_from(["", "/", "/a?", "/a#", ORIGIN]), texts)
    def holds(start: str, pieces: list[str]) -> None:
        check(start + "".join(pieces))

    holds()


def test_every_address_of_this_site_is_preserved() -> None:
    """Whatever the path of a page is made of, the login returns to a page with the same path."""
    hypothesis = pytest.importorskip("hypothesis")
    st = hypothesis.strategies
    character = st.characters(exclude_categories=["Cc", "Cs"], exclude_characters="\\�")
    segment = st.text(character, min_size=1, max_size=8).filter(lambda text: "/" not in text)
    inner = st.lists(segment.filter(lambda text: text not in (".", "..")), max_size=4)

    @hypothesis.settings(max_examples=200, deadline=None, database=None, derandomize=True)
    @hypothesis.given(inner, st.text(character, max_size=12), st.text(character, max_size=12))
    def holds(segments: list[str], query: str, fragment: str) -> None:
        path, query = "/" + "/".join(segments), query.replace("#", "")
        raw = "".join(f"{path}".replace("%", "%25").replace("?", "%3F").replace("#", "%23"))
        found = check(f"{raw}?{query}#{fragment}")
        assert found is not None
        rest, _, hash_part = found.partition("#")
        path_part, _, query_part = rest.partition("?")
        assert unquote(path_part) == path
        assert unquote(query_part) == unquote(query)
        assert unquote(hash_part) == unquote(fragment)

    holds()


@pytest.mark.browser
@pytest.mark.slow
def test_a_browser_stays_on_this_site(page: Page) -> None:
    """Chromium resolves what is accepted to the same address, byte for byte.

    It encodes an apostrophe in a query, which changes no site.
    """
    inputs = [*KEPT, *REFUSED, *generated(10_000)]
    accepted = [found for url in inputs if (found := check(url)) is not None]
    assert len(accepted) > 2000
    page.goto("about:blank")
    wrong = page.evaluate(
        """([origin, addresses]) => addresses.filter((address) => {
          const {href} = new URL(address, `${origin}/x/y?z`);
          const [start, ...hash] = address.split("#");
          const [path, ...query] = start.split("?");
          const encoded = query.length ? `?${query.join("?").replaceAll("'", "%27")}` : "";
          return href !== origin + path + encoded + (hash.length ? `#${hash.join("#")}` : "");
        })""",
        [ORIGIN, accepted],
    )
    assert wrong == []
