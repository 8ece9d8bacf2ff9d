"""How many calls and callers a server that does not respond, or responds slowly, keeps waiting."""

from __future__ import annotations

import threading

import pytest
from werkzeug.test import TestResponse

from flask_devkit_sso import DevKitSSO, ServerUnavailable
from flask_devkit_sso.protocol.transport import Transport
from flask_devkit_sso.protocol.trust import Trust

from ..clock import advance
from ..conftest import AppMaker, come_back, reason, sign_in, start, wait_until
from ..scripted import GET_TOKEN, TOKEN, Handler, ScriptedServer, closes, fails, hangs, says
from ..threads import Background, at_once

PEOPLE = 20


def codes(server: ScriptedServer) -> list[str]:
    """Return the codes that arrived at the server."""
    return [seen.json["authorization_code"] for seen in server.seen if seen.path == GET_TOKEN]


def test_four_logins_wait_for_a_server_that_hangs_and_the_others_can_be_repeated(
    make_app: AppMaker, server: ScriptedServer
) -> None:
    sso = DevKitSSO()
    app = make_app(sso, timeout=4)
    app.add_url_rule("/token", view_func=sso.access_token, endpoint="token")
    server.answers[GET_TOKEN] = says(TOKEN | {"data": TOKEN["data"] | {"expires_in": 1}})  # type: ignore[operator]
    reader = app.test_client()
    sign_in(reader)
    advance(10)
    server.seen.clear()
    server.answers[GET_TOKEN] = hangs
    people = {f"code-{number}": app.test_client() for number in range(PEOPLE)}
    states = {code: start(client)["state"] for code, client in people.items()}

    def complete(code: str) -> TestResponse:
        return come_back(people[code], states[code], code)

    logins = Background(lambda: at_once([lambda code=code: complete(code) for code in people]))  # type: ignore[misc]
    wait_until(lambda: codes(server))
    # Another interface has its own places.
    assert reader.get("/token").status_code == 200
    for response in logins.result():
        assert (response.status_code, reason(response)) == (503, "server_unavailable")
        assert response.headers["Retry-After"] == "5"
    used = codes(server)
    assert len(used) == 4
    server.answers[GET_TOKEN] = says(TOKEN)
    advance(5)
    for code in people:
        response = complete(code)
        if code in used:
            assert reason(response) == "login_unknown"
        else:
            assert response.status_code == 303
    assert sorted(codes(server)) == sorted(people)


def test_logins_wait_for_a_server_that_is_slow(make_app: AppMaker, server: ScriptedServer) -> None:
    def slowly(handler: Handler) -> None:
        handler.server.stopping.wait(0.2)
        says(TOKEN)(handler)

    server.answers[GET_TOKEN] = slowly
    # On a slow disk, so many writers could wait for a SQLite file longer than the store's deadline.
    app = make_app(timeout=30, store_url="memory://")
    app.testing = True
    at_once([lambda: sign_in(app.test_client())] * PEOPLE)


@pytest.mark.parametrize("visitors", [4, pytest.param(8, marks=pytest.mark.slow)])
def test_codes_that_are_refused_slowly_keep_nobody_else_from_signing_in(
    make_app: AppMaker, server: ScriptedServer, visitors: int
) -> None:
    lock, finished = threading.Lock(), threading.Event()
    waiting = refused = 0

    def answer(handler: Handler) -> None:
        nonlocal waiting, refused
        if handler.server.seen[-1].json["authorization_code"] != "bad":
            says(TOKEN)(handler)
            return
        with lock:
            waiting += 1
        handler.server.stopping.wait(3)
        with lock:
            waiting -= 1
            refused += 1
        fails("8102")(handler)

    server.answers[GET_TOKEN] = answer
    app = make_app(timeout=10)

    def send_bad_codes() -> None:
        while not finished.is_set():
            client = app.test_client()
            come_back(client, start(client)["state"], "bad")

    attack = [Background(send_bad_codes) for _ in range(visitors)]
    # So many calls are made before the first is answered.
    wait_until(lambda: waiting >= 3)
    for _ in range(5):
        sign_in(app.test_client())
    wait_until(lambda: refused and waiting >= 4)
    for _ in range(5):
        sign_in(app.test_client())
    finished.set()
    for visitor in attack:
        visitor.result()


def test_connections_that_the_server_resets_keep_nobody_else_from_signing_in(
    make_app: AppMaker, server: ScriptedServer
) -> None:
    app = make_app()
    for _ in range(5):
        server.answers[GET_TOKEN] = closes
        for _ in range(4):
            client = app.test_client()
            response = come_back(client, start(client)["state"], "odd")
            assert reason(response) == "server_unavailable"
        server.answers[GET_TOKEN] = says(TOKEN)
        sign_in(app.test_client())
    assert codes(server).count("odd") == 20


def test_background_calls_give_way(server: ScriptedServer) -> None:
    server.answers[GET_TOKEN] = hangs
    transport = Transport(trust=Trust(), timeout=4)
    sent = {}

    def send(name: str, *, background: bool = False) -> None:
        def call() -> None:
            with pytest.raises(ServerUnavailable):
                transport.post(server.url + GET_TOKEN, name.encode(), background=background)

        sent[name] = Background(call)

    def arrived() -> list[str]:
        return [seen.body.decode() for seen in server.seen]

    send("background-1", background=True)
    wait_until(lambda: len(arrived()) == 1)
    send("background-2", background=True)
    for number in (1, 2):
        send(f"person-{number}")
        wait_until(lambda number=number: len(arrived()) == 1 + number)  # type: ignore[misc]
    advance(1.2)
    # Now the server is silent: one more person may try.
    send("person-3")
    wait_until(lambda: len(arrived()) == 4)
    for name in ("person-4", "background-3"):
        send(name, background=name.startswith("background"))
        sent[name].result()
    sent["background-2"].result()
    assert arrived() == ["background-1", "person-1", "person-2", "person-3"]
    for call in sent.values():
        call.result()
    # If nobody else is calling, a background call finds out whether the server responds again.
    server.answers[GET_TOKEN] = says(TOKEN)
    advance(5)
    transport.post(server.url + GET_TOKEN, b"later", background=True)
    assert arrived()[-1] == "later"
