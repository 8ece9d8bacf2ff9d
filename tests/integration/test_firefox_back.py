"""Back, a reload and a bookmark after a login, in Firefox. See tests/web/test_stray.py."""

from __future__ import annotations

import pytest

from ..browser import Site
from ..conftest import SIGNED_IN, AppMaker
from ..scenarios import KINDS, Walk, exchanged
from ..scripted import ScriptedServer
from .firefox import Tab

TRUSTED_TYPES = {
    "Content-Security-Policy": "require-trusted-types-for 'script'; trusted-types 'none'"
}
FORBIDS_HTML = """(() => {
  try {
    document.createElement("p").innerHTML = "text";
  } catch {
    return true;
  }
  return false;
})()"""


@pytest.mark.parametrize("kind", [*KINDS, "front-end-with-trusted-types"])
def test_the_back_button(
    site: Site, server: ScriptedServer, make_app: AppMaker, tab: Tab, kind: str
) -> None:
    """Nothing but the first code is exchanged, and no page of the application sees a code."""
    walk = Walk(site, server, make_app)
    is_strict = kind.endswith("trusted-types")
    walk.serve(kind.removesuffix("-with-trusted-types"), TRUSTED_TYPES if is_strict else None)
    mine = site.url("/private")
    tab.goto(site.url("/"))
    assert tab.evaluate(FORBIDS_HTML) == is_strict
    tab.press("private")
    tab.press("back")
    tab.wait_for_url(mine)
    tab.wait_for_text("ada")
    tab.reload()
    tab.wait_for_text("ada")
    # The authentication server sends the person back with a fresh code.
    tab.evaluate("void (document.title = 'left')")
    tab.go_back()
    tab.wait_for(f"location.href == '{mine}' && document.title == 'app'")
    assert len(walk.responses) == 2
    # Nothing keeps the person from going further back.
    tab.go_back()
    tab.wait_for_url(site.url("/"))
    assert not any("code=" in url for url in addresses(tab))
    # And forward again, over both entries.
    tab.go_back(-2)
    tab.wait_for_url(mine)
    tab.go_back(2)
    tab.wait_for_url(site.url("/"))
    # A restored tab, or a bookmark: with the first code, and with a fresh one
    for url in (walk.responses[0], walk.responses[0].replace("CODE0", "FRESH")):
        other = tab.another()
        other.goto(url, wait="none")
        other.wait_for_url(mine)
        other.wait_for_text("ada")
        assert not any("code=" in url for url in addresses(other))
    # A bookmark of somebody else's response
    bookmark = walk.responses[0].replace("state=", "state=x")
    tab.goto(mine)
    tab.goto(bookmark, wait="none")
    tab.wait_for_url(site.url(SIGNED_IN))
    tab.wait_for_text("You are signed in as ada")
    tab.reload()
    tab.wait_for_text("You are signed in as ada")
    tab.press("Continue")
    tab.wait_for_url(site.url("/"))
    tab.go_back()
    tab.wait_for_text("You are signed in as ada")
    assert not any("code=" in url for url in addresses(tab))
    tab.press("Sign out")
    tab.wait_for("document.documentElement.dataset.outcome == 'told'")
    # Now nobody is signed in. With a fragment, only the script can remove the code.
    tab.goto(bookmark, wait="none")
    tab.wait_for("document.documentElement.dataset.reason == 'login_unknown'")
    if kind != "plain":
        assert tab.url == site.url(KINDS[kind.removesuffix("-with-trusted-types")])
    assert exchanged(server) == ["CODE0"]
    assert len(walk.responses) == 2, "there is no loop"
    assert walk.seen
    assert not any("code=" in address for address in walk.seen)


def addresses(tab: Tab) -> list[str]:
    """Return the addresses of this origin in a tab's history, except those that hide theirs
    (``no-referrer``)."""
    return list(tab.evaluate("navigation.entries().map(entry => entry.url ?? '')"))
