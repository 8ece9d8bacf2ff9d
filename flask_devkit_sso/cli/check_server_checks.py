"""The names of what ``check-server`` checks. docs/commands.md lists and explains them."""

from __future__ import annotations

from typing import Final

# The subjects of findings: the interfaces, with their sections of docs/protocol.md.
AUTHORIZE: Final = "1. authorize"
GET_TOKEN: Final = "2. getToken"  # noqa: S105
GET_USER_INFO: Final = "3. getUserInfo"
REFRESH_TOKEN: Final = "4. refreshToken"  # noqa: S105
VALIDITY: Final = "5. user validity"
LOGOUT: Final = "6. logout"

CHECKS: Final = {
    AUTHORIZE: (
        "login_page",
        "unknown_client",
        "unregistered_redirect_uri",
        "longer_redirect_uri",
        "sign_in",
        "state",
        "varying_redirect_uri",
        "cancelled_sign_in",
        "disabled_person",
    ),
    GET_TOKEN: (
        "error_codes",
        "envelope",
        "exchange",
        "expires_in",
        "code_used_twice",
        "revocation",
        "pkce",
        "wrong_parameters",
    ),
    GET_USER_INFO: ("error_codes", "envelope", "user", "role", "disabled_person"),
    REFRESH_TOKEN: (
        "error_codes",
        "envelope",
        "refresh",
        "new_access_token",
        "expires_in",
        "refresh_token",
        "disabled_person",
    ),
    VALIDITY: (
        "error_codes",
        "envelope",
        "valid_person",
        "made_up_person",
        "several_people",
        "disabled_person",
    ),
    LOGOUT: (
        "error_codes",
        "envelope",
        "logout",
        "access_token_ends",
        "refresh_token_ends",
        "sign_in_ends",
    ),
}
"""What is checked at each interface. The report says which of these were not tested."""

CONDITIONAL: Final = {
    AUTHORIZE: ("code_position", "iss", "vendor_product"),
    GET_USER_INFO: ("vendor_product",),
    REFRESH_TOKEN: ("vendor_product",),
}
"""What has a finding only if it applies."""
