"""``flask devkit-sso doctor``: checks everything between an application and its server.

It begins with the application and ends with the server. If one step fails, it skips the steps that
depend on it: no connection is tried to a host name that does not resolve, and nothing is sent if
TLS fails.
"""

from __future__ import annotations

from urllib.parse import urlsplit

import click
from flask.cli import ScriptInfo

from ..config.settings import Settings
from ..protocol.server import Server
from ..protocol.transport import Transport
from .doctor_authorize import check_authorize
from .doctor_network import check_origin
from .doctor_redirect_uri import check_redirect_uri
from .doctor_server import check_interfaces
from .doctor_settings import check_proxies, check_secret_key, check_settings
from .doctor_store import check_credentials_folder, check_store, find_store
from .findings import Findings
from .loading import LoadedApp, load_app


@click.command()
@click.pass_context
def doctor(ctx: click.Context) -> None:
    """Check everything between the application and the server.

    It checks settings, redirect URI, store, host name, connection, certificate and clock, whether
    authorize accepts the redirect URI, and how the server responds to requests that it has to
    refuse. It prints how to fix each problem. Run it as the user that the application runs as. The
    exit status is 1 if something is wrong.
    """
    found = Findings()
    _check(found, load_app(ctx.ensure_object(ScriptInfo)))
    ctx.exit(1 if found.error_count else 0)


def _check(found: Findings, loaded_app: LoadedApp) -> None:
    app, state, loaded = loaded_app.app, loaded_app.state, loaded_app.loaded_settings
    if loaded_app.error:
        found.error("application", f"could not be loaded: {loaded_app.error}")
    check_settings(found, loaded_app)
    if app is not None and state is not None:
        check_secret_key(found, app, state)
        check_redirect_uri(found, app, state)
        store = find_store(app, loaded)
        if store is None:
            found.warning("store", "not checked, because of the settings", "Fix the settings first")
        else:
            check_store(found, store, loaded.settings)
        check_credentials_folder(found, loaded, store)
    check_proxies(found)
    server = loaded.settings.server
    if loaded.errors or server is None:
        found.warning("server", "not checked, because of the settings", "Fix the settings first")
    else:
        _check_server(found, server, loaded.settings)


def _check_server(found: Findings, server: Server, settings: Settings) -> None:
    called = [server.token_url, server.user_info_url, server.refresh_url, server.logout_url]
    if server.validity is not None:
        called.append(server.validity.url)
    origins = {urlsplit(url)[:2]: None for url in called}
    reached = {origin for origin in origins if check_origin(found, *origin, settings)}
    transport = Transport(trust=settings.trust, timeout=settings.timeout)
    # Only browsers open authorize, so it may be at a host that the application cannot reach.
    of_authorize = urlsplit(server.authorize_url)[:2]
    if of_authorize in reached or of_authorize not in origins:
        is_reached = of_authorize in reached
        check_authorize(found, transport, server, settings, is_reached=is_reached)
    check_interfaces(found, transport, server, settings.redirect_uri, reached)
