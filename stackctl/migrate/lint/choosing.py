"""Which rules are asked, and how severe each is: what the configuration says, and the flags of one run."""

from __future__ import annotations

import difflib
from dataclasses import replace
from typing import TYPE_CHECKING

from stackctl.core.errors import ConfigError, UsageError
from stackctl.migrate.lint.linter import RULES
from stackctl.migrate.lint.rules.text import UNREADABLE

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from stackctl.config.settings import Setting
    from stackctl.migrate.lint.registry import LintRule


def choose_rules(
    only: Collection[str], excluded: Collection[str], disabled: Setting, severities: Setting
) -> dict[str, LintRule]:
    """The rules to ask, by id, each as severe as it counts.

    `only` beats what the configuration disables; with it, a file that can't be read is still reported, for nothing can
    be said about it. Raises UsageError, or ConfigError for a name in the configuration, where there is no such rule.
    """
    for flag, names in (("--rule", only), ("--exclude", excluded)):
        for name, hint in _list_unknown(names):
            raise UsageError(f"{flag}: there is no rule {name}", code="unknown-rule", hint=hint)
    for setting in (disabled, severities):
        for name, hint in _list_unknown(setting.value or ()):
            raise ConfigError(
                f"{setting.origin}: there is no rule {name}",
                code="unknown-rule",
                hint=hint,
                details={"key": setting.key, "rule": name},
            )
    wanted = {*only, UNREADABLE.id} if only else RULES.keys() - set(disabled.value or ())
    given = severities.value or {}
    return {
        id_: replace(rule, severity=given.get(id_, rule.severity))
        for id_, rule in RULES.items()
        if id_ in wanted and id_ not in excluded
    }


def parse_version(setting: Setting) -> int:
    """The version of a migration that the configuration names; 0 for none. Raises ConfigError."""
    if setting.value is None:
        return 0
    if not setting.value.isdecimal():
        raise ConfigError(
            f"{setting.origin}: expected a version, got {setting.value!r}",
            code="invalid-value",
            hint="the digits that the first file's name begins with",
            details={"key": setting.key},
        )
    return int(setting.value)


def _list_unknown(names: Iterable[str]) -> Iterable[tuple[str, str]]:
    for name in names:
        if name not in RULES:
            near = difflib.get_close_matches(name, RULES, n=1, cutoff=0.4)
            yield name, f"did you mean {near[0]}?" if near else "docs/lint.md lists the rules"
