"""What people are told when a login fails, by reason: what happened, what it means, what to do."""

from __future__ import annotations

from typing import Final, NamedTuple


class Failure(NamedTuple):
    """The text for one reason; ``retry``: whether signing in again may help."""

    title: str
    message: str
    advice: str
    retry: bool = True


_AGAIN = "Please sign in again."
_TELL = "If it happens again, tell the people who run this site, and give them the reference below."

FAILURES: Final[dict[str, Failure]] = {
    "login_expired": Failure(
        "The sign-in took too long",
        "For your safety a sign-in that was started must be finished within a few minutes.",
        _AGAIN,
    ),
    "login_unknown": Failure(
        "This sign-in can't be finished here",
        "It was not started in this browser, or it was finished already: by going back, by a "
        "reload, or in another tab. Nobody has been signed in by it.",
        "If you followed a link to get here, don't trust it. Otherwise please sign in again.",
    ),
    "cookie_missing": Failure(
        "Your browser did not send our cookie",
        "This site keeps a cookie while you sign in, to be sure that it is you who comes back. It "
        "did not arrive: cookies are blocked, or the sign-in began in another browser.",
        "Allow cookies for this site, then sign in again in the same browser.",
    ),
    "state_missing": Failure(
        "The sign-in can't be confirmed",
        "The sign-in server sent you back without the proof that this browser asked for the "
        "sign-in, so it was not accepted.",
        _TELL,
    ),
    "state_mismatch": Failure(
        "The sign-in can't be confirmed",
        "What the sign-in server sent back does not belong to a sign-in that this browser asked "
        "for, so it was not accepted.",
        f"{_AGAIN} {_TELL}",
    ),
    "code_missing": Failure(
        "The sign-in is incomplete",
        "The sign-in server sent you back without a usable code.",
        f"{_AGAIN} {_TELL}",
    ),
    "denied": Failure(
        "The sign-in was cancelled",
        "The sign-in server says that access was denied, by you or by its rules.",
        "You can sign in again whenever you like.",
    ),
    "authorize_error": Failure(
        "The sign-in server reported an error",
        "It could not carry out the sign-in that this site asked for.",
        f"Please try again. {_TELL}",
    ),
    "server_rejected": Failure(
        "The sign-in server refused",
        "It answered this site's question about your sign-in with an error.",
        f"Please try again. {_TELL}",
    ),
    "server_unavailable": Failure(
        "The sign-in server can't be reached",
        "This site asked it to confirm your sign-in and got no answer.",
        "Please try again in a minute.",
    ),
    "server_answer_invalid": Failure(
        "The sign-in server's answer makes no sense",
        "This site could not understand what it said about your sign-in, so it was not accepted.",
        f"Please try again. {_TELL}",
    ),
    "refused": Failure(
        "You can't sign in here",
        "Your account at the sign-in server is fine, but this site does not let it in.",
        "If you think that it should, ask the people who run this site.",
    ),
    "cross_site": Failure(
        "That did not come from this site",
        "The request was sent from another site's page, so nothing was done.",
        "Go to this site itself and try again there.",
        retry=False,
    ),
    "not_configured": Failure(
        "Signing in is not set up yet",
        "The people who run this site have not finished setting up how one signs in.",
        "Please try later, or tell them; the reference below leads them to what is missing.",
        retry=False,
    ),
    "store_unavailable": Failure(
        "This site can't look up sign-ins right now",
        "The place where they are kept does not answer. If you are signed in, you still are.",
        "Please try again in a few seconds.",
        retry=False,
    ),
}
