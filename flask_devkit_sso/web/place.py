"""Where the extension's routes are: at the redirect URI's host, below its mount point.

An application may serve other hosts too (``host_matching``, ``subdomain_matching``). Nobody can
sign in there, because the session's cookie belongs to the redirect URI's host alone.
"""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import quote, urlsplit, urlunsplit

import flask
from flask import Flask, Request, request
from werkzeug.exceptions import HTTPException, SecurityError
from werkzeug.routing import MapAdapter

from ..config.problem import Problem
from ..config.redirect_uri import RedirectURI
from ..config.settings import PREFIX
from ..errors import ConfigError, LoginFailed
from ..service import AppState, get_app, get_redirect_uri, get_request, get_state
from .requests import OUR_ENDPOINTS

_NOWHERE: Final = "redirect-uri-is-missing.invalid"
"""The host of our routes while the redirect URI is missing. No request has it (RFC 2606)."""


def find_place(app: Flask, uri: RedirectURI | None) -> dict[str, str]:
    """Return the host or subdomain at which to register our routes, as an option of Flask's.

    :raises ConfigError: if the application receives no requests at the redirect URI's host.
    """
    if app.url_map.host_matching:
        return {"host": uri.netloc if uri else _NOWHERE}
    subdomain = _find_subdomain(app, uri)
    return {} if subdomain is None else {"subdomain": subdomain}


def urls_at(app: Flask, uri: RedirectURI) -> MapAdapter:
    """Return the adapter that matches paths as in a request to the redirect URI's host.

    :raises ConfigError: as :func:`find_place`.
    """
    urls = app.url_map
    if urls.host_matching:
        return urls.bind(uri.netloc)
    subdomain = _find_subdomain(app, uri)
    if subdomain is None:
        # Flask ignores the host then.
        subdomain = "" if app.subdomain_matching else urls.default_subdomain
    return urls.bind(app.config["SERVER_NAME"] or uri.netloc, subdomain=subdomain)


def url_for(endpoint: str, **values: Any) -> str:
    """Return what Flask's ``url_for`` returns, but for our routes an address that browsers reach.

    It is a path, unless our routes are at another host than the current request.
    """
    is_for_browsers = endpoint.startswith(OUR_ENDPOINTS) and flask.has_request_context()
    if is_for_browsers and isinstance(request.routing_exception, SecurityError):
        # Flask builds no URL for a request whose host is not in TRUSTED_HOSTS.
        path = urls_at(get_app(), get_redirect_uri()).build(endpoint, values)
        return quote(mount_point()) + path
    url = flask.url_for(endpoint, **values)
    if not is_for_browsers:
        return url
    if url.startswith("/"):
        return url if request.script_root else quote(mount_point()) + url
    # Flask takes the scheme from the request, which a proxy may have changed.
    uri = get_state().redirect_uri
    return f"{uri.site}{urlunsplit(('', '', *urlsplit(url)[2:]))}" if uri else url


def mount_point() -> str:
    """Return the path below which browsers reach the application, or "".

    The server says where it has mounted the application (``SCRIPT_NAME``). If it says nothing, a
    proxy may strip the path. The redirect URI shows it, because it is an address in the browser.
    """
    return get_request().script_root or get_state().mount_point


def is_landing_path(state: AppState, here: Request) -> bool:
    """Return whether a request is for the redirect URI's path, and the landing page is needed
    there."""
    uri = state.redirect_uri
    return uri is not None and uri.needs_landing and uri.lands_on(mount_point() + here.path)


def is_at_sign_in_host() -> bool:
    """Return whether our routes are at the host of the current request."""
    app = get_app()
    matters = app.url_map.host_matching or app.subdomain_matching
    return not matters or flask.url_for("devkit_sso_callback.callback").startswith("/")


def require_sign_in_host() -> None:
    """Refuse to start a login for a page that the redirect URI's host does not have.

    If that host has the same page, the login leads there.

    :raises LoginFailed: ``not_configured``.
    """
    app, uri = get_app(), get_redirect_uri()
    if not (app.url_map.host_matching or app.subdomain_matching):
        return
    # Not request.view_args, which a url_value_preprocessor may have changed.
    here = app.create_url_adapter(request)
    if _match(here) != _match(urls_at(app, uri)):
        raise LoginFailed(
            "not_configured",
            hint=f"People can sign in only at {uri.site}, the redirect URI's host, where this path "
            f"leads to another page than at {request.host}. Serve the page there, or give each "
            f"host an application of its own with its own {PREFIX}REDIRECT_URI.",
        )


def _match(urls: MapAdapter | None) -> object:
    """Return what the current request's path leads to, or None if it leads nowhere."""
    try:
        return urls.match(request.path, method=request.method) if urls else None
    except HTTPException:
        return None


def find_route_problems(app: Flask, state: AppState) -> list[Problem]:
    """Return a problem for each of our routes that requests to the redirect URI's host miss."""
    uri, found = state.redirect_uri, []
    if uri is None:
        return []
    try:
        urls = urls_at(app, uri)
    except ConfigError as error:
        return [Problem(str(error))]
    for rule in app.url_map.iter_rules():
        if not rule.endpoint.startswith(OUR_ENDPOINTS) or rule.arguments:
            continue
        try:
            endpoint = urls.match(rule.rule, "GET")[0]
        except HTTPException:
            text = f"{rule.rule} is not found at {uri.netloc}, the redirect URI's host"
            fix = "Set SERVER_NAME, the redirect URI and how hosts are matched before init_app"
            found.append(Problem(text, fix))
        else:
            if endpoint != rule.endpoint:
                text = f"{rule.rule} leads to the application's view {endpoint}"
                fix = f"Change the view's path, or {PREFIX}URL_PREFIX"
                found.append(Problem(text, fix))
    return found


def find_unreachable_rules(app: Flask, state: AppState) -> list[str]:
    """Return the application's own rules below our prefix, which no request reaches."""
    below = f"{state.settings.url_prefix}/"
    return [
        rule.rule
        for rule in app.url_map.iter_rules()
        if rule.rule.startswith(below) and not rule.endpoint.startswith(OUR_ENDPOINTS)
    ]


def _find_subdomain(app: Flask, uri: RedirectURI | None) -> str | None:
    """Return the redirect URI's subdomain, or None if subdomains do not matter."""
    name = app.config["SERVER_NAME"]
    if not app.subdomain_matching or uri is None or not name:
        return None
    # A proxy may change the port.
    server = urlsplit(f"//{name}").hostname or ""
    host = f".{uri.host}"
    if not host.endswith(f".{server}"):
        raise ConfigError(
            f"{PREFIX}REDIRECT_URI is at {uri.host}, but with subdomain_matching the application "
            f"serves only SERVER_NAME ({name}) and its subdomains. Use a redirect URI there, or "
            "change SERVER_NAME"
        )
    return host.removesuffix(f".{server}").lstrip(".")
