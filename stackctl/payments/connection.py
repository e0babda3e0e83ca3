"""How a project is connected to Stripe, and whether it is in test mode."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from stackctl.backend.tenancies import remove_paths, write_config
from stackctl.core.errors import StateError
from stackctl.postgres.statements import load_statements

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from uuid import UUID

    from stackctl.backend.tenancies import ConfigLayers
    from stackctl.config.settings import Settings
    from stackctl.payments.gateway import Gateway
    from stackctl.postgres.connect import Connection

_TEST_MODE = ("payments", "testMode")
_SQL = load_statements(__file__, "purchases")


@dataclass(frozen=True)
class ConnectionStatus:
    """`due`: what Stripe waits for, `past_due`: what of it is overdue, `errors`: what was wrong with what it was given,
    as `requirement: reason`; `disabled_reason`: why Stripe has switched the account off, in its own word.

    Modes are `test` or `live`: of the key, and of the tenancy's configuration. `earlier_accounts`: others that refunds
    of the tenancy were made on.
    """

    account: str
    status: Literal["setup-incomplete", "connected"]
    disabled_reason: str | None
    past_due: tuple[str, ...]
    errors: tuple[str, ...]
    due: tuple[str, ...]
    charges_enabled: bool
    payouts_enabled: bool
    key_mode: str
    project_mode: str
    earlier_accounts: tuple[str, ...]


def open_gateway(
    settings: Settings,
    account: str | None,
    tell: Callable[[str], None] = lambda text: None,
    take_turn: Callable[[], None] = lambda: None,
) -> Gateway | None:
    """Stripe, or the stand-in that is named in its place, on a connected account or on the platform's own. `tell` hears
    of a long silence, `take_turn` waits until a call may be made.

    None: no key is set. Raises what `Gateway` and `open_stand_in` raise.
    """
    key, base = settings.get("payments.stripe_api_key"), settings.get("payments.stripe_api_base")
    if base and base.startswith("embedded:"):
        from stackctl.payments.stand_in.folder import open_stand_in

        key, base = open_stand_in(settings.base_dir / base.removeprefix("embedded:"))
    if not key:
        return None
    from stackctl.payments.gateway import Gateway

    return Gateway(key, base, account, tell, take_turn)


def find_account(conn: Connection, layers: ConfigLayers) -> str:
    """The connected account of the tenancy's project. Raises StateError `no-account`."""
    row = conn.execute(_SQL["find_account"], {"project": layers.project}).fetchone()
    if row is None or not row[0]:
        raise StateError(
            f"project {layers.project} has no connected Stripe account",
            code="no-account",
            hint="connect one in the project's payment settings first",
        )
    return row[0]


def list_accounts(conn: Connection, tenancy: UUID | None) -> Sequence[str]:
    """All that are or were connected, of a tenancy or of all."""
    return [row[0] for row in conn.execute(_SQL["list_accounts"], {"tenancy": tenancy})]


def list_earlier_accounts(conn: Connection, tenancy: UUID, account: str) -> Sequence[str]:
    """Those that refunds of the tenancy were made on, without the one that is connected now."""
    if not ledger_exists(conn):
        return ()
    return [one for one in list_accounts(conn, tenancy) if one != account]


def ledger_exists(conn: Connection) -> bool:
    """Whether stackctl's ledger of refunds was made in this database."""
    row = conn.execute(_SQL["ledger_exists"]).fetchone()
    return bool(row and row[0])


def list_connected_tenancies(conn: Connection, limit: int) -> Sequence[tuple[UUID, str]]:
    """Tenancies whose project has a connected account, each with it; no more than so many."""
    return conn.execute(_SQL["list_connected_tenancies"], {"limit": limit}).fetchall()


def read_readiness(gateway: Gateway, account: str) -> tuple[tuple[str, ...], bool]:
    """What Stripe waits for, and whether it lets the account take charges."""
    found = gateway.get_account(account)
    return _requirements_due(found), bool(found.get("charges_enabled"))


def _requirements_due(account: Mapping[str, Any]) -> tuple[str, ...]:
    requirements: Any = account.get("requirements") or {}
    return tuple(requirements.get("currently_due") or ())


def read_status(
    gateway: Gateway, account: str, layers: ConfigLayers, earlier_accounts: Sequence[str] = ()
) -> ConnectionStatus:
    found = gateway.get_account(account)
    requirements: Any = found.get("requirements") or {}
    return ConnectionStatus(
        account=account,
        status="connected" if found.get("details_submitted") else "setup-incomplete",
        disabled_reason=requirements.get("disabled_reason") or None,
        past_due=tuple(requirements.get("past_due") or ()),
        errors=tuple(
            f"{one.get('requirement')}: {one.get('reason') or one.get('code')}"
            for one in requirements.get("errors") or ()
        ),
        due=_requirements_due(found),
        charges_enabled=bool(found.get("charges_enabled")),
        payouts_enabled=bool(found.get("payouts_enabled")),
        key_mode=gateway.mode,
        project_mode="test" if is_test_mode(layers) else "live",
        earlier_accounts=tuple(earlier_accounts),
    )


def is_test_mode(layers: ConfigLayers) -> bool:
    """On unless the configuration says otherwise."""
    return layers.get(*_TEST_MODE) is not False


def set_test_mode(conn: Connection, layers: ConfigLayers, on: bool) -> None:
    """Write this one key, and no other. Raises StateError `changed-meanwhile`."""
    key = ".".join(_TEST_MODE)
    write_config(conn, layers, {**remove_paths(layers.environment_config or {}, [key]), key: on})
