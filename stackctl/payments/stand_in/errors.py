"""What Stripe says when it does not do what it was asked."""

from __future__ import annotations

from typing import Any


class Refused(Exception):
    """`type` as in Stripe's error object; `code` and `param` where there is one."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type_: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body: dict[str, Any] = {
            "error": {"type": type_, "message": message}
            | ({"code": code} if code else {})
            | ({"param": param} if param else {})
        }


def missing(what: str, id_: str) -> Refused:
    return Refused(404, f"No such {what}: '{id_}'", code="resource_missing", param="id")
