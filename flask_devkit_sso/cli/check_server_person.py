"""A person who signs in at the server for ``check-server``."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Final

from ..errors import ServerError, ServerUnavailable
from ..protocol.error_codes import SUCCESS
from .check_server_authorize import Redirect, parse_redirect
from .check_server_target import Target
from .check_server_visitors import NotBack, Visitor

ERRORS: Final = (
    "invalid_request",
    "unauthorized_client",
    "access_denied",
    "unsupported_response_type",
    "invalid_scope",
    "server_error",
    "temporarily_unavailable",
)
"""RFC 6749 section 4.1.2.1. Nothing else that the server sends as an ``error`` may be shown."""


class Person:
    """Makes authorization requests, and exchanges the codes.

    :ivar access_tokens: the access tokens that the server has issued during the test.
    """

    def __init__(self, target: Target, visitor: Visitor) -> None:
        self._target = target
        self.visitor = visitor
        self.access_tokens: list[str] = []

    def authorize(
        self,
        purpose: str,
        redirect_uri: str,
        subject: str,
        check: str,
        *,
        state: str | None = None,
        code_verifier: str | None = None,
        refusal: str = "",
    ) -> Redirect | None:
        """Open an authorization request, and return the redirect back if it has one code.

        Without such a redirect, report it for the check and return None.

        :param refusal: a note instead of an error if the server does not redirect back.
        """
        url = self.url(redirect_uri, state=state, code_verifier=code_verifier)
        redirect = self.come_back(
            lambda: self.visitor.sign_in(url, redirect_uri, purpose),
            redirect_uri,
            subject,
            check,
            refusal=refusal,
        )
        if redirect is None or len(redirect.parameters.get("code", [])) == 1:
            return redirect
        if refusal and "error" in redirect.parameters:
            self._target.found.note(subject, check, refusal)
            return None
        self._target.found.error(subject, check, f"redirects back with {describe(redirect)}")
        return None

    def come_back(
        self,
        visit: Callable[[], str],
        redirect_uri: str,
        subject: str,
        check: str,
        *,
        refusal: str = "",
    ) -> Redirect | None:
        """Return what the address contains that a visit leads to.

        Without such an address, report it for the check and return None.
        """
        found = self._target.found
        try:
            address = visit()
        except NotBack as error:
            if error.level == "skipped":
                found.skip(subject, check, why=error.text)
            elif refusal and not error.is_unreachable:
                found.note(subject, check, refusal)
            else:
                report = found.error if error.level == "error" else found.warning
                report(subject, check, error.text, error.fix)
            return None
        redirect = parse_redirect(address, redirect_uri)
        if redirect is None:
            found.error(
                subject,
                check,
                "the address is not the redirect_uri with parameters",
                "Add code to the end of the redirect_uri, or as a query before its fragment",
            )
        return redirect

    def look(self, redirect_uri: str, why: str) -> str | None:
        """Open authorize without signing in, as :meth:`Visitor.look` does."""
        return self.visitor.look(self.url(redirect_uri), redirect_uri, why)

    def url(
        self, redirect_uri: str, *, state: str | None = None, code_verifier: str | None = None
    ) -> str:
        return self._target.client.authorization_url(
            redirect_uri=redirect_uri, state=state, code_verifier=code_verifier
        )

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


def describe(redirect: Redirect) -> str:
    if "error" not in redirect.parameters:
        return f"{len(redirect.parameters.get('code', []))} codes"
    error = "".join(redirect.parameters["error"])
    return f"an error ({error})" if error in ERRORS else "an error"
