"""One user of the operated database: who it is, whether and why it is restricted, and restricting it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal
from uuid import UUID

from psycopg import errors

from stackctl.core.errors import StateError, UsageError
from stackctl.postgres.statements import load_statements

if TYPE_CHECKING:
    from datetime import datetime

    from stackctl.postgres.connect import Connection

LOCK_TIMEOUT = "10s"  # for which a change waits for whoever holds the row
MAX_LISTED = 20  # matches that an error names, at the most

# What the backend writes into the private details when a sign-up rule restricts somebody: id and display name.
_BY_RULE = re.compile(r"^Restricted by sign-up rule: (\S+)(?: \(.*\))?$", re.MULTILINE)
_CONSTRAINT = "ProjectUser_restricted_by_admin_consistency"

_SQL = load_statements(__file__)


@dataclass(frozen=True)
class Channel:
    """A contact channel: `type` EMAIL and an address, so far."""

    type: str
    value: str
    primary: bool
    verified: bool
    used_for_auth: bool


@dataclass(frozen=True)
class Trigger:
    """A sign-up rule that acted on the user, as the application recorded it."""

    rule_id: str
    action: str
    at: datetime


@dataclass(frozen=True)
class Restriction:
    """The user row's own restriction. Reason (public) and private details are there only while `by_admin` is true."""

    by_admin: bool = False
    reason: str | None = None
    private_details: str | None = None

    def with_reason(self, reason: str, private_details: str | None) -> Restriction:
        """With this reason, and these details: None keeps those there are, an empty text takes them away."""
        details = self.private_details if private_details is None else private_details or None
        return Restriction(by_admin=True, reason=reason, private_details=details)


@dataclass(frozen=True)
class Cause:
    """Why a user is restricted. `rule_id`: of the sign-up rule; `at`: when it acted, where that was recorded."""

    kind: Literal["anonymous", "unverified-email", "rule", "admin"]
    rule_id: str | None = None
    at: datetime | None = None


@dataclass(frozen=True)
class User:
    """A user with what concerns signing up. Times are UTC.

    `sequence_id` is the stamp of the last change, None while it waits for one. `must_verify`: the tenancy restricts
    users whose primary address is not verified.
    """

    tenancy: UUID
    id: UUID
    project: str
    branch: str
    display_name: str | None
    anonymous: bool
    signed_up_at: datetime
    country_code: str | None
    risk_bot: int
    risk_free_trial_abuse: int
    restriction: Restriction
    must_verify: bool
    sequence_id: int | None
    channels: tuple[Channel, ...]
    triggers: tuple[Trigger, ...]

    @property
    def primary_email(self) -> Channel | None:
        return next((one for one in self.channels if one.primary and one.type == "EMAIL"), None)

    def find_causes(self, restriction: Restriction | None = None) -> list[Cause]:
        """Why the user is restricted, or would be with another `restriction` on the row; nothing when it is not."""
        restriction = restriction or self.restriction
        found: list[Cause] = []
        if self.anonymous:
            found.append(Cause("anonymous"))
        email = self.primary_email
        if self.must_verify and not self.anonymous and not (email and email.verified):
            found.append(Cause("unverified-email"))
        if restriction.by_admin:
            found += self._find_causes_on_row(restriction)
        return found

    def _find_causes_on_row(self, restriction: Restriction) -> list[Cause]:
        details = restriction.private_details or ""
        rules = {one.rule_id: one.at for one in self.triggers if one.action == "restrict"}
        rules = dict.fromkeys(_BY_RULE.findall(details)) | rules
        by_rule = [Cause("rule", rule, at) for rule, at in rules.items()]
        # A rule gives no reason, and of private details nothing but its line: the rest is a person's.
        by_person = restriction.reason is not None or _BY_RULE.sub("", details).strip() != ""
        return by_rule + ([Cause("admin")] if by_person or not by_rule else [])


@dataclass(frozen=True)
class _Match:
    tenancy: UUID
    id: UUID
    address: str | None
    primary: bool | None

    def __str__(self) -> str:
        channel = "" if self.address is None else f" ({'primary' if self.primary else 'not primary'})"
        return f"{self.id}{channel} in tenancy {self.tenancy}"


def find_user(conn: Connection, who: str, tenancy: UUID | None = None) -> User:
    """The user with this id, or with this address in any of its e-mail channels, in whatever case it is stored.

    Raises UsageError `unknown-user`, `unknown-tenancy`, or `ambiguous-user` when several match.
    """
    if tenancy is not None and conn.execute(_SQL["find_tenancy"], {"tenancy": tenancy}).fetchone() is None:
        raise UsageError(
            f"tenancy {tenancy} does not exist in the operated database",
            code="unknown-tenancy",
            hint="`stackctl tenancies list` shows those that are there",
        )
    matches = _find_matches(conn, who, tenancy)
    if not matches:
        within = f" in tenancy {tenancy}" if tenancy is not None else ""
        raise UsageError(
            f"there is no user {who!r}{within}",
            code="unknown-user",
            hint="name a user by id, or by an e-mail address",
        )
    if len(matches) > 1:
        raise _ambiguous(who, matches)
    return _read_user(conn, matches[0].tenancy, matches[0].id)


def _find_matches(conn: Connection, who: str, tenancy: UUID | None) -> list[_Match]:
    values: dict[str, object] = {"tenancy": tenancy, "limit": MAX_LISTED + 1}
    if "@" in who:
        values["address"] = who.strip()
        values["spellings"] = sorted({who.strip(), who.strip().lower()})
        # Those two have an index; another spelling takes a look at every address, so it comes after.
        found = [_Match(*row) for row in conn.execute(_SQL["find_by_email"], values)]
        return found or [_Match(*row) for row in conn.execute(_SQL["find_by_email_in_any_case"], values)]
    try:
        values["id"] = UUID(who)
    except ValueError:
        raise UsageError(f"{who!r} is neither the id of a user (a UUID) nor an e-mail address", code="usage") from None
    return [_Match(*row) for row in conn.execute(_SQL["find_by_id"], values)]


def _ambiguous(who: str, matches: list[_Match]) -> UsageError:
    listed = matches[:MAX_LISTED]
    number = str(len(matches)) if len(matches) <= MAX_LISTED else f"more than {MAX_LISTED}"
    apart = len({match.tenancy for match in matches}) == len(matches)
    return UsageError(
        [f"{number} users match {who!r}:", *(f"  {match}" for match in listed)],
        code="ambiguous-user",
        hint="say which with --tenancy" if apart else "name one by its id, with --tenancy",
        details={"matches": [{"tenancy": str(m.tenancy), "user": str(m.id), "primary": m.primary} for m in listed]},
    )


def _read_user(conn: Connection, tenancy: UUID, id_: UUID) -> User:
    key = {"tenancy": tenancy, "id": id_}
    row = conn.execute(_SQL["read_user"], key).fetchone()
    if row is None:
        raise _changed_meanwhile(id_)
    name, project, branch, anonymous, signed_up_at, country, bot, abuse, by_admin, reason, details, stamp, verify = row
    recorded = conn.execute(_SQL["can_read_triggers"]).fetchone()
    triggers = conn.execute(_SQL["list_triggers"], key).fetchall() if recorded and recorded[0] else []
    return User(
        tenancy=tenancy,
        id=id_,
        project=project,
        branch=branch,
        display_name=name,
        anonymous=anonymous,
        signed_up_at=signed_up_at,
        country_code=country,
        risk_bot=bot,
        risk_free_trial_abuse=abuse,
        restriction=Restriction(by_admin, reason, details),
        must_verify=verify,
        sequence_id=stamp,
        channels=tuple(Channel(*channel) for channel in conn.execute(_SQL["list_channels"], key)),
        triggers=tuple(Trigger(*trigger) for trigger in triggers),
    )


def change_restriction(conn: Connection, user: User, restriction: Restriction) -> None:
    """Write `restriction` to the user's row, and mark the row for the sync; one transaction, under the row's lock.

    Raises StateError: `changed-meanwhile` when the row's restriction is no longer that of `user`, `lock-timeout` when
    somebody holds the row, `constraint-violated` when the table refuses it.
    """
    key = {"tenancy": user.tenancy, "id": user.id}
    try:
        with conn.transaction():
            conn.execute(_SQL["set_lock_timeout"], {"timeout": LOCK_TIMEOUT})
            held = conn.execute(_SQL["lock_user"], key).fetchone()
            if held is None or Restriction(*held) != user.restriction:
                raise _changed_meanwhile(user.id)
            values = {
                "by_admin": restriction.by_admin,
                "reason": restriction.reason,
                "private_details": restriction.private_details,
            }
            conn.execute(_SQL["update_restriction"], key | values)
    except errors.CheckViolation as error:
        raise _refused(error) from error


def _changed_meanwhile(id_: UUID) -> StateError:
    return StateError(
        f"user {id_} was changed by someone else in the meantime; nothing was written",
        code="changed-meanwhile",
        hint="look at it with `stackctl users show`, and try again",
    )


def _refused(error: errors.CheckViolation) -> StateError:
    name = error.diag.constraint_name or "unknown"
    means = (
        "a reason and private details may be there only while the user is restricted"
        if name == _CONSTRAINT
        else "a rule of the table that stackctl does not know"
    )
    return StateError(
        f"the database refuses the change ({name}): {means}; nothing was written",
        code="constraint-violated",
        hint='look for a trigger on "ProjectUser" that alters what is written',
        details={"constraint": name},
    )
