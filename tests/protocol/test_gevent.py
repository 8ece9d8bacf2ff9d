"""Calls to the server in a process that gevent has patched."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import trustme

SCRIPT = """
from gevent import monkey; monkey.patch_all()
import socket, ssl, sys, threading, time
from flask_devkit_sso import ServerUnavailable
from flask_devkit_sso.protocol.transport import Transport
from flask_devkit_sso.protocol.trust import Trust

ca, certificate = sys.argv[1:]
tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
tls.load_cert_chain(certificate)
listening = socket.create_server(("127.0.0.1", 0))

def serve():
    # The first response is sent at once, and the second byte by byte, in one TLS record.
    sock, _ = listening.accept()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    layer = tls.wrap_bio(incoming, outgoing, server_side=True)

    def until_done(step):
        while True:
            try:
                return step()
            except ssl.SSLWantReadError:
                sock.sendall(outgoing.read())
                incoming.write(sock.recv(65536) or sys.exit())

    until_done(layer.do_handshake)
    for pause in (0, 0.02):
        received = b""
        while not received.endswith(b"{}"):
            received += until_done(lambda: layer.read(65536))
        layer.write(b"HTTP/1.1 200 x\\r\\nContent-Length: 1000\\r\\n\\r\\n" + b" " * 1000)
        for byte in outgoing.read():
            sock.sendall(bytes([byte]))
            if pause:
                time.sleep(pause)

threading.Thread(target=serve, daemon=True).start()
transport = Transport(trust=Trust(ca), timeout=5)
url = f"https://127.0.0.1:{listening.getsockname()[1]}/"
print(transport.post(url, b"{}").status)
try:
    print(transport.post(url, b"{}").status)
except ServerUnavailable as error:
    print(error.description)
"""


def test_the_deadline_of_a_call_on_an_idle_connection(tmp_path: Path) -> None:
    pytest.importorskip("gevent")
    ca, pem = trustme.CA(), tmp_path / "server.pem"
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    ca.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(pem))
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "ca.pem"), str(pem)]
    found = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert found.stdout.splitlines() == [
        "200",
        "The server did not respond completely within 5 seconds.",
    ], found.stderr
