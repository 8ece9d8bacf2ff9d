"""Gunicorn with two workers, a sandbox, and people who use both without a real browser."""

from __future__ import annotations

import http.client
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import requests

from . import forked, processes
from .processes import ROOT, free_port
from .scripted import REFRESH_TOKEN, ScriptedServer
from .threads import Background

CLIENT_ID = "20221017000000001"
CLIENT_SECRET = "canary-client-secret-51fe"
SECRET_KEY = "8b7c1f02aa93e6d4-no-one-knows-this"


@contextmanager
def sandbox(*redirect_uris: str, options: Sequence[str] = ()) -> Iterator[str]:
    """Run the sandbox in a separate process; yields its URL."""
    arguments = [text for uri in redirect_uris for text in ("--redirect-uri", uri)]
    arguments += [*options, "--client-id", CLIENT_ID, "--client-secret", CLIENT_SECRET]
    with processes.sandbox(*arguments) as exported:
        yield exported["SERVER_URL"]


class Gunicorn:
    """An application under gunicorn, with two workers.

    :param options: additional options of gunicorn. With the worker class gevent, it runs in a new
        interpreter, in which nothing has been imported before gevent patches it.
    :param clock: a file that :func:`tests.apps.set_clock_by` reads.
    """

    def __init__(
        self,
        server_url: str,
        store_url: str,
        *,
        port: int,
        clock: Path | None = None,
        options: Sequence[str] = (),
        **settings: str,
    ) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.server_url = server_url
        given = {
            "SERVER_URL": server_url,
            "CLIENT_ID": CLIENT_ID,
            "CLIENT_SECRET": CLIENT_SECRET,
            "REDIRECT_URI": redirect_uri(port),
            "STORE_URL": store_url,
        } | {name.upper(): value for name, value in settings.items()}
        environment = {k: v for k, v in os.environ.items() if not k.startswith("FLASK_")}
        environment |= {f"FLASK_DEVKIT_SSO_{name}": value for name, value in given.items()}
        environment["FLASK_SECRET_KEY"] = SECRET_KEY
        if clock is not None:
            environment["CLOCK"] = str(clock)
        command = ["-m", "gunicorn", "--workers", "2", "--threads", "4", "--log-level", "error"]
        command += ["--bind", f"127.0.0.1:{port}", "--no-control-socket"]
        # Inherited from pytest, so that gunicorn's output appears if a test fails.
        streams = (0, 1, 2)
        command += [*options, "tests.apps:create_app()"]
        if "gevent" in options:
            program = f"import os, sys; os.execv(sys.executable, [sys.executable, *{command!r}])"
            command = ["-c", program]
        self._process = forked.Program(command, streams, cwd=ROOT, env=environment)
        try:
            self._wait(120)
        except BaseException:
            self.stop()
            raise

    def _wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while True:
            try:
                requests.get(f"{self.url}/who", timeout=seconds)
                return
            except requests.ConnectionError:
                assert self._process.is_running(), "gunicorn ended"
                assert time.monotonic() < until, "gunicorn does not respond"
                time.sleep(0.05)

    def workers(self) -> list[int]:
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        return [int(pid) for pid in children.read_text().split()]

    def wait_for_workers(self) -> None:
        """Wait until every worker has responded, when all killed ones have been replaced."""
        responded: set[int] = set()
        until = time.monotonic() + 120
        while len(responded.intersection(self.workers())) < 2:
            assert time.monotonic() < until
            responded.add(requests.get(f"{self.url}/who", timeout=60).json()["pid"])

    def kill_a_worker(self) -> None:
        self.kill_workers(1)

    def kill_workers(self, number: int) -> None:
        for pid in self.workers()[:number]:
            os.kill(pid, signal.SIGKILL)

    def halt(self, how: signal.Signals) -> None:
        """Send all workers a signal, such as SIGSTOP or SIGCONT."""
        for pid in self.workers():
            os.kill(pid, how)

    def __enter__(self) -> Gunicorn:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(60)
        except TimeoutError:
            for pid in self.workers():
                os.kill(pid, signal.SIGKILL)
            self._process.kill()
            self._process.wait()


def redirect_uri(port: int) -> str:
    return f"http://127.0.0.1:{port}/sso/callback"


@contextmanager
def site(
    store_url: str, instances: int = 1, *, options: Sequence[str] = (), **settings: str
) -> Iterator[list[Gunicorn]]:
    """Run a sandbox and several instances of one installation, which share the redirect_uri.

    :param options: options of the sandbox.
    """
    ports = [free_port() for _ in range(instances)]
    settings.setdefault("redirect_uri", redirect_uri(ports[0]))
    with sandbox(redirect_uri(ports[0]), options=options) as server_url, ExitStack() as stack:
        yield [
            stack.enter_context(Gunicorn(server_url, store_url, port=port, clock=None, **settings))
            for port in ports
        ]


@dataclass(frozen=True)
class Response:
    status: int
    text: str
    headers: dict[str, str]


class Browser:
    """A browser, signed in by the scripted server, for one or more instances."""

    def __init__(self, *instances: Gunicorn) -> None:
        self.instances = instances
        session = requests.Session()
        session.trust_env = False
        url = instances[0].url
        start = session.get(f"{url}/sso/authorize", allow_redirects=False, timeout=60)
        (state,) = parse_qs(urlsplit(start.headers["Location"]).query)["state"]
        back = f"{url}/sso/callback"
        query = {"code": "code-1", "state": state}
        response = session.get(back, params=query, allow_redirects=False, timeout=60)
        assert response.status_code == 303, response.text
        self._cookie = "; ".join(f"{c.name}={c.value}" for c in session.cookies)
        session.close()

    def send(
        self, path: str, instance: Gunicorn | None = None, method: str = "GET"
    ) -> http.client.HTTPConnection:
        netloc = urlsplit((instance or self.instances[0]).url).netloc
        connection = http.client.HTTPConnection(netloc, timeout=90)
        headers = {"Cookie": self._cookie, "Connection": "close"}
        headers |= {"Accept": "text/html", "Sec-Fetch-Site": "same-origin"}
        connection.request(method, path, headers=headers)
        return connection

    def receive(self, connection: http.client.HTTPConnection) -> Response:
        with connection.getresponse() as response:
            text = response.read().decode()
            return Response(response.status, text, dict(response.headers))

    def get(self, path: str, instance: Gunicorn | None = None, method: str = "GET") -> Response:
        return self.receive(self.send(path, instance, method))

    def get_at_once(self, path: str, number: int) -> list[Response]:
        """Send ``number`` concurrent requests: all are sent before the first response is read."""
        instances = self.instances * number
        sent = [self.send(path, instance) for instance in instances[:number]]
        return [self.receive(connection) for connection in sent]


def open_at_once(browsers: Sequence[Browser], path: str) -> list[Response]:
    """Let all browsers open a page: all requests are sent before the first response is read."""
    sent = [browser.send(path) for browser in browsers]
    return [browser.receive(one) for browser, one in zip(browsers, sent, strict=True)]


@dataclass
class Deployment:
    """Instances of one installation, and a scripted server that a test may replace."""

    store_url: str
    instances: list[Gunicorn]
    server: ScriptedServer

    def refreshes(self) -> int:
        return self.server.paths.count(REFRESH_TOKEN)


@contextmanager
def deployment(
    store_url: str,
    instances: int | None = None,
    clock: Path | None = None,
    *,
    options: Sequence[str] = (),
    **settings: str,
) -> Iterator[Deployment]:
    """Run a scripted server and instances: by default two with Redis, and one otherwise.

    :param options: additional options of gunicorn.
    """
    number = instances or (2 if store_url.startswith("redis") else 1)
    ports = [free_port() for _ in range(number)]
    settings.setdefault("redirect_uri", redirect_uri(ports[0]))
    settings.setdefault("timeout", "2")
    server = ScriptedServer()
    with ExitStack() as stack:
        new = Deployment(store_url, [], server)
        stack.callback(lambda: new.server.stop())
        for port in ports:
            gunicorn = Gunicorn(
                server.url,
                store_url,
                port=port,
                clock=clock,
                options=options,
                **settings,
            )
            new.instances.append(stack.enter_context(gunicorn))
        yield new


class Unavailable(Exception):
    """The store or a worker is unavailable; ``status`` 0 means that there was no response."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Person:
    """A person who uses an application whose workers may die, see :class:`Unavailable`."""

    def __init__(self, username: str, url: str) -> None:
        self.username = username
        self.url = url
        self._at_sandbox = processes.Person(username)
        self.browser = self._at_sandbox.browser

    def get(self, url: str) -> requests.Response:
        return self._ask("GET", url)

    def post(self, url: str) -> requests.Response:
        return self._ask("POST", url)

    def _ask(self, method: str, url: str, **kwargs: Any) -> requests.Response:
        url = url if url.startswith("http") else self.url + url
        try:
            response = self.browser.request(
                method, url, allow_redirects=False, timeout=60, **kwargs
            )
        except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError):
            raise Unavailable(0) from None
        if response.status_code >= 500:
            assert response.headers.get("Retry-After") or response.status_code != 503
            raise Unavailable(response.status_code)
        return response

    def sign_in(self) -> bool:
        """Sign in again; return whether the application confirmed the login."""
        response = self.get("/sso/authorize")
        if response.headers.get("Location") == "/":
            return True
        back = self._at_sandbox.response_url(response.headers["Location"])
        path = back[back.index("/", len("http://")) :]
        return self.get(path).status_code == 303

    def who(self) -> Any:
        return self.get("/who").json()

    def sign_out(self) -> bool:
        """Sign out; return whether the logout was reported to the server."""
        response = self._ask(
            "POST",
            "/sso/logout",
            headers={"Sec-Fetch-Site": "same-origin", "Accept": "application/json"},
        )
        return bool(response.json()["server_told"])

    def copy(self, url: str | None = None) -> Person:
        """Return another browser with the same cookies, optionally at another instance."""
        other = Person(self.username, url or self.url)
        other.browser.cookies.update(self.browser.cookies)
        return other


@dataclass
class Tally:
    """The counts of one run of :func:`load`."""

    logins: int = 0
    reads: int = 0
    lost: int = 0
    wrong: int = 0
    undone: int = 0
    unanswered: int = 0
    errors: dict[int, int] = field(default_factory=dict)
    worst: float = 0.0


def load(url: str, seconds: float, people: int, faults: Callable[[], None]) -> Tally:
    """Let people sign in, read pages and sign out repeatedly while ``faults`` runs.

    The tally counts ``lost`` (sessions that were lost after the login was confirmed), ``wrong``
    (responses with another user or an ended session), ``undone`` (those of
    them with an ended session), and ``unanswered`` (requests without a
    response, because the worker was killed). ``worst`` is the longest time in seconds that a person
    waited for a successful response.
    """
    tally = Tally()
    lock = threading.Lock()
    until = time.monotonic() + seconds

    def retry(what: Callable[[], Any]) -> Any:
        began = time.monotonic()
        while True:
            try:
                response = what()
            except Unavailable as failure:
                with lock:
                    if failure.status:
                        number = tally.errors.get(failure.status, 0)
                        tally.errors[failure.status] = number + 1
                    else:
                        tally.unanswered += 1
                if time.monotonic() > until + 30:
                    raise
                time.sleep(0.1)
            else:
                with lock:
                    tally.worst = max(tally.worst, time.monotonic() - began)
                return response

    def live(number: int) -> None:
        turn = 0
        while time.monotonic() < until:
            turn += 1
            person = Person(f"person-{number}-{turn}", url)
            while not retry(person.sign_in):
                # A lost response used up the login: start another one.
                pass
            with lock:
                tally.logins += 1
            for _ in range(20):
                name = retry(person.who)["username"]
                with lock:
                    tally.reads += 1
                    tally.lost += name is None
                    tally.wrong += name not in (None, person.username)
                if name is None or time.monotonic() > until:
                    break
            copy = person.copy()
            retry(person.sign_out)
            alive = retry(copy.who)["username"] is not None
            with lock:
                tally.wrong += alive
                tally.undone += alive
            person.browser.close()
            copy.browser.close()

    living = [Background(partial(live, number)) for number in range(people)]
    while time.monotonic() < until:
        faults()
    for one in living:
        one.result()
    return tally
