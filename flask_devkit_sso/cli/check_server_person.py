"""A person who signs in at the server for ``check-server`` and pastes addresses."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress

from ..errors import ServerError, ServerUnavailable
from ..protocol.error_codes import SUCCESS
from .check_server_authorize import Redirect, parse_redirect
from .check_server_target import AUTHORIZE, Target
from .output import echo


class Person:
    """Opens authorization requests in a browser.

    :param ask: asks for the address that the server redirected to; it returns "" if there is none.
    :ivar access_tokens: the access tokens that the server has issued during the test.
    """

    def __init__(self, target: Target, ask: Callable[[str], str]) -> None:
        self._target = target
        self._ask = ask
        self.access_tokens: list[str] = []

    def authorize(
        self,
        purpose: str,
        redirect_uri: str,
        *,
        state: str | None = None,
        code_verifier: str | None = None,
    ) -> Redirect | None:
        """Open an authorization request, and return the redirect back if it has one code.

        Without such a redirect, print why and return None.
        """
        found = self._target.found
        url = self._target.client.authorization_url(
            redirect_uri=redirect_uri, state=state, code_verifier=code_verifier
        )
        echo(f"\nOpen this URL for {purpose}:\n  {url}")
        address = self._ask("The address that you were redirected to (not shown)")
        if not address:
            found.note(AUTHORIZE, f"no address given for {purpose.partition(' (')[0]}")
            return None
        redirect = parse_redirect(address, redirect_uri)
        if redirect is None:
            found.error(
                AUTHORIZE,
                "the address is not the redirect_uri with parameters",
                "Add code to the end of the redirect_uri, or as a query before its fragment",
            )
            return None
        if len(redirect.parameters.get("code", [])) != 1:
            found.error(AUTHORIZE, f"redirects back with {_describe(redirect)}")
            return None
        return redirect

    def exchange(
        self, redirect: Redirect, redirect_uri: str, *, code_verifier: str | None = None
    ) -> str | None:
        """Exchange a code, and return the code of the envelope, or None without one."""
        try:
            tokens = self._target.client.exchange(
                redirect.code, redirect_uri=redirect_uri, code_verifier=code_verifier
            )
        except ServerError as error:
            return error.server_code
        except ServerUnavailable:
            return None
        self.access_tokens.append(tokens.access_token)
        return SUCCESS

    def sign_out(self) -> None:
        """End all sign-ins, so that the test leaves nobody signed in at the server."""
        for token in reversed(self.access_tokens):
            with suppress(ServerError, ServerUnavailable):
                self._target.client.logout(token)


def _describe(redirect: Redirect) -> str:
    if "error" not in redirect.parameters:
        return f"{len(redirect.parameters.get('code', []))} codes"
    # Nothing else that the server sent may be shown.
    error = "".join(redirect.parameters["error"])
    return f"an error ({error})" if re.fullmatch(r"[a-z_]{3,40}", error) else "an error"
