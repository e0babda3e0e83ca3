"""A user of the database as the rules saw it at its sign-up, as far as the database tells."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, cast

from stackctl.postgres.statements import load_statements
from stackctl.rules.model import AUTH_METHODS, Context

if TYPE_CHECKING:
    from stackctl.backend.users import User
    from stackctl.postgres.connect import Connection

_SQL = load_statements(__file__)


def list_contexts(conn: Connection, user: User, auth_method: str | None = None) -> list[Context]:
    """What conditions saw of the user, read as a backtest reads it.

    Where the database does not tell how the user signed up, and `auth_method` does not say: one for each way.
    """
    email = user.primary_email
    seen = Context(
        email=email.value.strip().lower() if email else "",
        country_code=(user.country_code or "").upper(),
        bot=user.risk_bot,
        free_trial_abuse=user.risk_free_trial_abuse,
    )
    row = conn.execute(_SQL["find_sign_up_provider"], {"tenancy": user.tenancy, "id": user.id}).fetchone()
    if row is not None:
        return [replace(seen, auth_method="oauth", oauth_provider=cast("str", row[0]))]
    return [replace(seen, auth_method=method) for method in ([auth_method] if auth_method else AUTH_METHODS)]
