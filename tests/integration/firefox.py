"""Firefox, driven by WebDriver BiDi (https://w3c.github.io/webdriver-bidi/), which it speaks
itself."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

COMMAND = "/usr/bin/firefox-esr"
PATIENCE = 60
"""Seconds, long enough for a busy machine: only a failing test waits this long."""

LISTENING = re.compile(r"WebDriver BiDi listening on (ws://[\d.:]+)")

PREFERENCES = {
    # Firefox calls nobody but the tests' servers.
    "app.update.disabledForTesting": True,
    "datareporting.policy.dataSubmissionEnabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "extensions.systemAddon.update.enabled": False,
    "services.settings.server": "",
    # A process for each site takes longer than most tests.
    "dom.ipc.processCount": 1,
}


class JavaScriptError(Exception):
    """A script that a test ran in a page raised an exception."""


@contextmanager
def started(folder: Path) -> Iterator[Firefox]:
    """Start a headless Firefox with a new profile in a folder."""
    profile = folder / "profile"
    profile.mkdir(parents=True)
    lines = [f"user_pref({json.dumps(k)}, {json.dumps(v)});" for k, v in PREFERENCES.items()]
    (profile / "user.js").write_text("\n".join(lines))
    command = [COMMAND, "--headless", "--no-remote", "--remote-debugging-port=0"]
    path = folder / "firefox.log"
    with (
        path.open("wb") as log,
        subprocess.Popen(
            [*command, f"--profile={profile}"],
            stdout=log,
            stderr=log,
            env={"HOME": str(folder), "PATH": "/usr/bin:/bin"},
        ) as process,
    ):
        try:
            # A response may contain a whole page, and the default limit is one MiB.
            with connect(f"{_address(process, path)}/session", max_size=None, proxy=None) as socket:
                firefox = Firefox(socket)
                yield firefox
                firefox.send("browser.close")
            process.wait(PATIENCE)
        finally:
            process.kill()


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    until = time.perf_counter() + PATIENCE
    while time.perf_counter() < until and process.poll() is None:
        found = LISTENING.search(log.read_text(errors="replace"))
        if found:
            return found[1]
        time.sleep(0.05)
    raise AssertionError(f"Firefox did not start:\n{log.read_text(errors='replace')}")


class Firefox:
    """A session with a Firefox that runs."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._last_id = 0
        self._listeners: list[Callable[[str, dict[str, Any]], None]] = []
        self.send("session.new", capabilities={"alwaysMatch": {"acceptInsecureCerts": True}})
        self.send("session.subscribe", events=["log.entryAdded", "network.beforeRequestSent"])

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Run a command and return its result.

        :raises JavaScriptError: if Firefox reports an error.
        """
        self._last_id += 1
        self._socket.send(json.dumps({"id": self._last_id, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(PATIENCE))
            if message.get("id") == self._last_id:
                if message["type"] == "error":
                    raise JavaScriptError(f"{message['error']}: {message['message']}")
                result: dict[str, Any] = message["result"]
                return result
            for listener in self._listeners:
                listener(message.get("method", ""), message.get("params", {}))

    def new_tab(self, user_context: str | None = None) -> Tab:
        """Open a tab.

        :param user_context: the tabs whose cookies it shares; by default none.
        """
        context = user_context or self.send("browser.createUserContext")["userContext"]
        created = self.send("browsingContext.create", type="tab", userContext=context)
        return Tab(self, created["context"], context)

    def listen(self, listener: Callable[[str, dict[str, Any]], None]) -> None:
        self._listeners.append(listener)


class Tab:
    """A tab of Firefox, with what its pages request and write to the console."""

    def __init__(self, firefox: Firefox, context: str, user_context: str) -> None:
        self._firefox = firefox
        self._context = context
        self._user_context = user_context
        self.requested: list[str] = []
        self.console: list[str] = []
        firefox.listen(self._record)

    def _record(self, method: str, event: dict[str, Any]) -> None:
        source = event.get("context") or event.get("source", {}).get("context")
        if source != self._context:
            return
        if method == "network.beforeRequestSent":
            # Firefox tells the test about the hash, which it does not send.
            self.requested.append(event["request"]["url"].partition("#")[0])
        elif method == "log.entryAdded" and event["level"] in ("error", "warn"):
            self.console.append(str(event["text"]))

    def goto(self, url: str, wait: str = "complete") -> None:
        """Open an address, as a person does who types it.

        :param wait: "complete" for the page to which its redirects lead, or "none" where a script
            leads on.
        """
        try:
            self._firefox.send(
                "browsingContext.navigate", context=self._context, url=url, wait=wait
            )
        except JavaScriptError as error:
            # The script has led on before Firefox responded to the command.
            if wait != "none" or "NS_BINDING_ABORTED" not in str(error):
                raise

    def reload(self) -> None:
        self._firefox.send("browsingContext.reload", context=self._context, wait="complete")

    def go_back(self, steps: int = 1) -> None:
        self._firefox.send("browsingContext.traverseHistory", context=self._context, delta=-steps)

    def another(self) -> Tab:
        """Open another tab with the same cookies."""
        return self._firefox.new_tab(self._user_context)

    def frame(self) -> Tab:
        """Return the frame in this page, as soon as there is one."""
        self.wait_for("frames.length == 1 && document.readyState == 'complete'")
        tree = self._firefox.send("browsingContext.getTree", root=self._context)
        (child,) = tree["contexts"][0]["children"]
        return Tab(self._firefox, child["context"], self._user_context)

    def evaluate(self, expression: str) -> Any:
        """Return the value of an expression of JavaScript, which may be a promise.

        :raises JavaScriptError: if it fails, or if the page went away in the meantime.
        """
        found = self._firefox.send(
            "script.evaluate",
            expression=f"(async () => JSON.stringify((await ({expression})) ?? null))()",
            target={"context": self._context},
            awaitPromise=True,
        )
        if found["type"] != "success":
            raise JavaScriptError(found["exceptionDetails"]["text"])
        return json.loads(found["result"]["value"])

    @property
    def url(self) -> str:
        tree = self._firefox.send("browsingContext.getTree", root=self._context)
        url: str = tree["contexts"][0]["url"]
        return url

    def wait_for(self, condition: str) -> Any:
        """Wait until an expression of JavaScript is true in the page, and return its value.

        The page may be left and loaded again until then.
        """
        until = time.perf_counter() + PATIENCE
        while time.perf_counter() < until:
            try:
                if value := self.evaluate(condition):
                    return value
            except JavaScriptError:
                pass
            time.sleep(0.05)
        raise AssertionError(f"{condition} is not true at {self.url}: {self._text()!r}")

    def wait_for_text(self, text: str) -> None:
        """Wait until the page shows a text."""
        self.wait_for(f"document.body.innerText.includes({json.dumps(text)})")

    def wait_for_url(self, url: str) -> None:
        """Wait until the page at an address is loaded."""
        self.wait_for(f"location.href == {json.dumps(url)} && document.readyState == 'complete'")

    def fill(self, selector: str, value: str) -> None:
        """Type a value into a field, as soon as there is one."""
        field = f"document.querySelector({json.dumps(selector)})"
        self.wait_for(f"{field} != null")
        self.evaluate(f"void ({field}.value = {json.dumps(value)})")

    def click(self, text: str) -> None:
        """Click the link or button with a text, as soon as there is one."""
        found = self._find(text)
        # Not at once: the page may go away before this script returns.
        self.evaluate(f"void ((node) => setTimeout(() => node.click()))({found})")

    def press(self, text: str) -> None:
        """Click the link or button with a text as a person does, with the pointer."""
        found = self._find(text)
        self.evaluate(f"{found}.scrollIntoView({{ block: 'center' }})")
        place = self.evaluate(
            f"(box => [box.x + box.width / 2, box.y + box.height / 2])({found}"
            ".getBoundingClientRect())"
        )
        x, y = map(round, place)
        moves: list[dict[str, Any]] = [
            {"type": "pointerMove", "x": x, "y": y},
            {"type": "pointerDown", "button": 0},
            {"type": "pointerUp", "button": 0},
        ]
        source = {"type": "pointer", "id": "mouse", "actions": moves}
        self._firefox.send("input.performActions", context=self._context, actions=[source])

    def _find(self, text: str) -> str:
        """Wait for a link or button, and return an expression for it. Style sheets move it, so the
        page has to be complete."""
        found = (
            "[...document.querySelectorAll('a, button')]"
            f".find(node => node.innerText.trim() == {json.dumps(text)})"
        )
        self.wait_for(f"document.readyState == 'complete' && {found} != null")
        return found

    def run_first(self, statement: str) -> None:
        """Run a statement in every further page of this tab before the page's own scripts."""
        self._firefox.send(
            "script.addPreloadScript",
            functionDeclaration=f"() => {{ {statement} }}",
            contexts=[self._context],
        )

    def close(self) -> None:
        """Close this tab and those that share its cookies."""
        self._firefox.send("browser.removeUserContext", userContext=self._user_context)

    def _text(self) -> Any:
        try:
            return self.evaluate("document.body.innerText")
        except JavaScriptError as error:
            return error
