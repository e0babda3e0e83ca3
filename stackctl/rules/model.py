"""Rules, and the user they judge. The meaning of both is the backend's that enforces them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    from stackctl.rules.cel.values import Lists

ActionType = Literal["allow", "reject", "restrict", "log"]
DefaultAction = Literal["allow", "reject"]
AuthMethod = Literal["password", "otp", "oauth", "passkey"]

ACTIONS: tuple[str, ...] = get_args(ActionType)
DEFAULT_ACTIONS: tuple[str, ...] = get_args(DefaultAction)
AUTH_METHODS: tuple[str, ...] = get_args(AuthMethod)
FIELDS = ("email", "emailDomain", "countryCode", "authMethod", "oauthProvider", "riskScores")
RISKS = ("bot", "free_trial_abuse")
MAX_RISK = 100
MAX_PRIORITY = 2**53 - 1  # above, JavaScript's numbers are not whole
_ID = re.compile("[A-Za-z0-9_][A-Za-z0-9_-]{0,62}")


@dataclass(frozen=True)
class Action:
    """What a rule that matches does. `message` is a note for operators; no user sees it."""

    type: ActionType
    message: str | None = None


@dataclass(frozen=True)
class Rule:
    """One rule. `condition` is CEL; empty or None never matches. `line`: of the condition in its file, 0 if unknown.

    `lists`: those of its file, which the condition may use by name.
    """

    id: str
    display_name: str
    enabled: bool
    priority: int
    condition: str | None
    action: Action
    line: int = 0
    lists: Lists = field(default_factory=dict, compare=False, repr=False)


@dataclass(frozen=True)
class RuleSet:
    """Rules in the order of their file, and what happens to a user whom none of them decides."""

    default_action: DefaultAction
    rules: tuple[Rule, ...]

    @property
    def ordered(self) -> tuple[Rule, ...]:
        """In the backend's order of evaluation: ids that are whole numbers, then by priority, equal ones by id."""
        return tuple(sorted(self.rules, key=_evaluation_key))


def explain_bad_id(id_: str) -> str | None:
    """Why the backend takes no rule of such an id; None if it does."""
    if _ID.fullmatch(id_):
        return None
    if not id_.strip():
        return "a rule needs an id"
    why = "has a dot, which the backend would read as a path" if "." in id_ else "is none that the backend takes"
    return f"the id {why}: up to 63 letters, digits, _ and -, and no - at the start"


def is_integer_id(id_: str) -> bool:
    """Whether the id is an array index to JavaScript, whose objects hold those first and ascending.

    So the backend evaluates such a rule before all others, whatever its priority.
    """
    return re.fullmatch("0|[1-9][0-9]{0,9}", id_) is not None and int(id_) < 2**32 - 1


def id_order(id_: str) -> tuple[bytes, tuple[int, ...]]:
    """By what the backend sorts rules of equal priority: UTF-16 units without case, and `a` before `A`."""
    return id_.upper().encode("utf-16-be", "surrogatepass"), tuple(-ord(character) for character in id_)


def _evaluation_key(rule: Rule) -> tuple[bool, int, tuple[bytes, tuple[int, ...]]]:
    first = is_integer_id(rule.id)
    return not first, int(rule.id) if first else -rule.priority, id_order(rule.id)


@dataclass(frozen=True)
class Context:
    """What a condition sees of a user who signs up, normalized: nothing is ever null."""

    email: str = ""
    country_code: str = ""
    auth_method: str = "password"
    oauth_provider: str = ""
    bot: int = 0
    free_trial_abuse: int = 0

    @classmethod
    def from_user(
        cls,
        *,
        email: str | None = None,
        country_code: str | None = None,
        auth_method: str = "password",
        oauth_provider: str | None = None,
        risk_scores: dict[str, int] | None = None,
    ) -> Context:
        """Normalize what is known of a user. Raises ValueError, whose message says what is expected."""
        if auth_method not in AUTH_METHODS:
            raise ValueError(f"{auth_method!r} is not an auth method: {', '.join(AUTH_METHODS)}")
        scores = risk_scores or {}
        for name, score in scores.items():
            if name not in RISKS:
                raise ValueError(f"{name!r} is not a risk score: {', '.join(RISKS)}")
            if isinstance(score, bool) or not isinstance(score, int) or not 0 <= score <= MAX_RISK:
                raise ValueError(f"the risk score {name} is a whole number from 0 to {MAX_RISK}")
        country = (country_code or "").strip().upper()
        if country and not (len(country) == 2 and country.isascii() and country.isalpha()):
            raise ValueError(f"{country_code!r} is not a two-letter country code")
        provider = (oauth_provider or "").strip()
        if provider and auth_method != "oauth":
            raise ValueError(f"an OAuth provider goes with auth method oauth, not {auth_method}")
        return cls(
            email=(email or "").strip().lower(),
            country_code=country,
            auth_method=auth_method,
            oauth_provider=provider,
            bot=scores.get("bot", 0),
            free_trial_abuse=scores.get("free_trial_abuse", 0),
        )

    @property
    def email_domain(self) -> str:
        """What follows the last @."""
        return self.email.rpartition("@")[2] if "@" in self.email else ""

    def fields(self) -> dict[str, Any]:
        """By the names that conditions use."""
        return {
            "email": self.email,
            "emailDomain": self.email_domain,
            "countryCode": self.country_code,
            "authMethod": self.auth_method,
            "oauthProvider": self.oauth_provider,
            "riskScores": {"bot": self.bot, "free_trial_abuse": self.free_trial_abuse},
        }
