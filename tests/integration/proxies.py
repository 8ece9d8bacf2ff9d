"""Run the reverse proxies of the documents, in front of an application."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import trustme

from .. import processes

NGINX = """
{user}
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/nginx.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/app.conf;
}}
"""
"""What a distribution's own configuration of nginx contains."""


APACHE = """
ServerRoot "{folder}"
PidFile "{folder}/apache.pid"
ErrorLog "{folder}/proxy.log"
ServerName 127.0.0.1
Listen 127.0.0.1:{port}
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule headers_module /usr/lib/apache2/modules/mod_headers.so
LoadModule proxy_module /usr/lib/apache2/modules/mod_proxy.so
LoadModule proxy_http_module /usr/lib/apache2/modules/mod_proxy_http.so
LoadModule ssl_module /usr/lib/apache2/modules/mod_ssl.so
{user}
Include "{folder}/app.conf"
"""
"""What a distribution's own configuration of Apache contains."""


@dataclass
class Place:
    """Where a proxy finds everything."""

    folder: Path
    port: int
    app: str
    program: str = ""
    plain_port: int = 0

    def fill_in(self, configuration: str) -> str:
        """Replace the addresses and paths that a document shows."""
        changes = {
            "127.0.0.1:8000": self.app,
            "127.0.0.1:8001": self.program,
            "/etc/ssl/certs/": f"{self.folder}/",
            "/etc/ssl/private/": f"{self.folder}/",
            "/srv/": f"{self.folder}/",
            "listen 443 ": f"listen 127.0.0.1:{self.port} ",
            "listen 80;": f"listen 127.0.0.1:{self.plain_port};",
            "/var/log/nginx/": f"{self.folder}/",
            "server_name app.example.com": "server_name 127.0.0.1",
            "ServerName app.example.com": "ServerName 127.0.0.1",
            "<VirtualHost *:443>": f"<VirtualHost 127.0.0.1:{self.port}>",
            "https://app.example.com$": f"https://127.0.0.1:{self.port}$",
        }
        for shown, real in changes.items():
            configuration = configuration.replace(shown, real)
        return configuration


def write_certificate(folder: Path) -> str:
    """Write a certificate with the names that documents show; return the path of its CA."""
    ca = trustme.CA()
    ca.cert_pem.write_to_path(folder / "ca.pem")
    certificate = ca.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(folder / "app.example.com.key")
    (folder / "app.example.com.pem").write_bytes(
        b"".join(blob.bytes() for blob in certificate.cert_chain_pems)
    )
    return str(folder / "ca.pem")


def nginx_with(place: Place, configuration: str) -> list[str]:
    """Write nginx's configuration, and return its command."""
    (place.folder / "app.conf").write_text(place.fill_in(configuration))
    user = "user root;" if os.geteuid() == 0 else ""
    main = place.folder / "nginx.conf"
    main.write_text(NGINX.format(folder=place.folder, user=user))
    return ["/usr/sbin/nginx", "-c", str(main), "-e", str(place.folder / "nginx.log")]


def apache_with(place: Place, configuration: str) -> list[str]:
    """Write Apache's configuration, and return its command."""
    (place.folder / "app.conf").write_text(place.fill_in(configuration))
    user = "User www-data\nGroup www-data" if os.geteuid() == 0 else ""
    main = place.folder / "apache.conf"
    main.write_text(APACHE.format(folder=place.folder, user=user, port=place.port))
    return ["/usr/sbin/apache2", "-f", str(main), "-DFOREGROUND"]


def haproxy_with(place: Place, configuration: str) -> list[str]:
    """Write HAProxy's configuration, and return its command."""
    certificate, key = (place.folder / f"app.example.com.{kind}" for kind in ("pem", "key"))
    both = place.folder / "haproxy.pem"
    both.write_bytes(certificate.read_bytes() + key.read_bytes())
    changes = {
        "127.0.0.1:8000": place.app,
        "bind :443 ": f"bind 127.0.0.1:{place.port} ",
        "/etc/haproxy/app.example.com.pem": str(both),
    }
    for shown, real in changes.items():
        assert shown in configuration
        configuration = configuration.replace(shown, real)
    file = place.folder / "haproxy.cfg"
    file.write_text(configuration)
    # Debian's own configuration names folders and a user as well.
    return ["/usr/sbin/haproxy", "-db", "-f", str(file)]


@contextmanager
def running(command: list[str], url: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with (
        log.open("wb") as output,
        subprocess.Popen(command, cwd=log.parent, stdout=output, stderr=output) as process,
    ):
        try:
            processes.wait_for(url, process)
            yield process
        except AssertionError as error:
            error.add_note(log.read_text(errors="replace")[-5000:])
            raise
        finally:
            process.terminate()
            process.wait(60)
