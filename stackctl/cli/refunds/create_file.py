"""`stackctl refunds create --file`: many refunds, each a row of a file."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from stackctl.core.errors import EXIT_INTERRUPTED, ServiceError, StackctlError, StateError, UsageError
from stackctl.core.files import STDIN
from stackctl.core.sentences import format_count

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from stackctl.cli.command import Run
    from stackctl.payments.gateway import Gateway
    from stackctl.payments.refunds.batch import Batch, BatchRow, Pace
    from stackctl.payments.refunds.refund_rows import RefundRow
    from stackctl.payments.refunds.request import RefundRequest

SHOWN = 20  # rows of a table; the report has all
MAX_BYTES = 64 * 1024 * 1024  # of a file
COLUMNS = ("line", "state", "purchase", "customer", "amount", "currency", "quantity", "refund", "in Stripe",
           "request id", "code", "reason")  # fmt: skip
_UNKNOWN, _REFUSED = 6, 5  # exit codes


def create_from_file(
    run: Run,
    path: Path,
    open_gateway: Callable[[str], Gateway],
    pace: Pace,
    make_request: Callable[[RefundRow], RefundRequest],
    *,
    report: Path | None,
    tenancy: str | None,
    skip_refused: bool,
    dry_run: bool,
    yes: bool,
) -> None:
    """`make_request`: what a row asks for."""
    from stackctl.payments.refunds.batch import Batch, BatchStopped
    from stackctl.payments.refunds.refund_rows import parse_refund_rows

    _check_report(report)
    name = "stdin" if path == STDIN else str(path)
    rows = parse_refund_rows(name, _read(path), make_request, run.console.warn)
    rows = [replace(one, tenancy=one.tenancy or tenancy) for one in rows]
    batch = Batch(run.database, _keep_by_thread(open_gateway, pace), make_request, threading.Event())
    try:
        with run.console.progress("looking at what remains", len(rows), "rows") as progress:
            found = batch.check(rows, progress.advance)
    except BatchStopped as stopped:
        raise stopped.__cause__ or stopped from None
    except KeyboardInterrupt:
        run.console.warn("nothing was refunded: not all rows were looked at")
        raise
    refused = [one for one in found if one.state == "refused" and not one.was_known]
    if dry_run:
        _write_report(report, found)
        _finish_dry_run(run, found, refused)
        return
    if refused and not skip_refused:
        _write_report(report, found)
        raise _refused_error(refused, len(rows))
    ready = [one for one in found if one.state == "ready"]
    if ready:
        run.confirm(_question(name, ready, refused, pace), yes=yes)
    _refund(run, batch, found, ready, report)


def _check_report(report: Path | None) -> None:
    if report is None:
        return
    if report.suffix.lower() not in (".csv", ".json"):
        raise UsageError(f"--report: {report} is neither .csv nor .json", code="usage")
    if report.is_dir() or not report.resolve().parent.is_dir():
        raise UsageError(
            f"--report: {report} can't be written", code="usage", hint="name a file in a folder that is there"
        )


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"--file: {path} can't be read: {error.strerror}", code="usage") from error
    if len(data) > MAX_BYTES:
        raise UsageError(f"--file: {path} has more than {MAX_BYTES // 1024**2} MiB", code="usage", hint="part it")
    return data


def _keep_by_thread(open_gateway: Callable[[str], Gateway], pace: Pace) -> Callable[[str], Gateway]:
    """One of each account for a thread: its connection to Stripe is made once."""
    from stackctl.payments.refunds.batch import LIVE_RATE

    kept = threading.local()

    def open_kept(account: str) -> Gateway:
        gateways: dict[str, Gateway] = kept.__dict__.setdefault("gateways", {})
        if account not in gateways:
            gateways[account] = open_gateway(account)
            if gateways[account].mode == "live":
                pace.rate = LIVE_RATE
        return gateways[account]

    return open_kept


def _refund(run: Run, batch: Batch, found: list[BatchRow], ready: list[BatchRow], report: Path | None) -> None:
    from stackctl.payments.refunds.batch import BatchStopped

    fault: BaseException | None = None
    try:
        with run.console.progress("refunding", len(ready), "rows") as progress:
            ended = batch.refund(found, progress.advance)
    except BatchStopped as stopped:
        fault = stopped.__cause__
        made = {one.row.line: one for one in stopped.done}
        ended = [made.get(one.row.line, one) for one in found]
    ended = [replace(one, state="not-done") if one.state == "ready" else one for one in ended]
    _write_report(report, ended)
    if fault is not None and not isinstance(fault, StackctlError):
        raise fault
    if fault is not None:
        run.console.warn(f"it was stopped: {fault.message}" + (f" ({fault.hint})" if fault.hint else ""))
    states = Counter(one.state for one in ended)
    code = _exit_code(states, fault)
    if batch.stopping.is_set() and fault is None:
        code = EXIT_INTERRUPTED
    document = {
        "counts": {state: states[state] for state in ("done", "refused", "unknown", "not-done")},
        "sums": _sum_document([one for one in ended if one.state == "done"]),
        "rows": [_row_document(one) for one in ended],
    }
    run.finish(document, lambda: _show(run, ended, report), ok=code == 0, exit_code=code)


def _exit_code(states: Counter[Any], fault: StackctlError | None) -> int:
    if states["unknown"]:
        return _UNKNOWN
    if states["not-done"]:
        return fault.exit_code if fault else ServiceError.exit_code
    return _REFUSED if states["refused"] else 0


def _sums(rows: Sequence[BatchRow]) -> dict[str, int]:
    found = defaultdict[str, int](int)
    for one in rows:
        if one.currency is not None:
            found[one.currency] += one.amount
    return dict(sorted(found.items()))


def _sum_document(rows: Sequence[BatchRow]) -> dict[str, str]:
    from stackctl.payments.money import format_decimal

    return {currency: format_decimal(amount, currency) for currency, amount in _sums(rows).items()}


def _format_sums(rows: Sequence[BatchRow]) -> str:
    from stackctl.payments.money import format_money

    return ", ".join(format_money(amount, currency) for currency, amount in _sums(rows).items()) or "nothing"


def _question(name: str, ready: Sequence[BatchRow], refused: Sequence[BatchRow], pace: Pace) -> str:
    from stackctl.payments.refunds.batch import LIVE_RATE

    kind = "REAL MONEY" if pace.rate == LIVE_RATE else "test money"
    taken = sum(one.quantity for one in ready)
    text = f"Refund {_format_sums(ready)} ({kind}) by {format_count(len(ready), 'row', 'rows')} of {name}"
    if taken:
        text += f", and revoke {taken:,}"
    if refused:
        text += f"; {format_count(len(refused), 'row', 'rows')} can't be refunded and are passed over"
    return f"{text}?"


def _refused_error(refused: Sequence[BatchRow], rows: int) -> StateError:
    listed = [f"line {one.row.line}: {_tell(one)}" for one in refused[:SHOWN]]
    more = len(refused) - SHOWN
    is_repetition = any(one.problem and one.problem.code == "refunded-moments-ago" for one in refused)
    return StateError(
        [f"{len(refused):,} of {format_count(rows, 'row', 'rows')} can't be refunded, so nothing was:",
         *(f"  {one}" for one in listed), *([f"  and {more:,} more"] * (more > 0))],
        code="refund-rows-refused",
        hint="take them out, or pass --skip-refused; --report FILE names all"
        + ("; --again refunds what was refunded moments ago, too" if is_repetition else ""),
        details={"rows": [_row_document(one) for one in refused]},
    )  # fmt: skip


def _tell(one: BatchRow) -> str:
    if one.problem is not None:
        return one.problem.message
    refund = one.refund
    if refund is None:
        return "not begun"
    return refund.failure or f"refund {refund.id} is {refund.status}"


def _row_document(one: BatchRow) -> dict[str, Any]:
    from stackctl.payments.money import format_decimal

    told = one.state not in ("done", "ready")
    return {
        "line": one.row.line,
        "state": one.state,
        "named": one.row.purchase,
        "purchase_id": one.purchase.id if one.purchase else None,
        "tenancy": one.purchase.tenancy if one.purchase else None,
        "customer": one.purchase.customer if one.purchase else None,
        "amount": None if one.currency is None else format_decimal(one.amount, one.currency),
        "currency": one.currency,
        "quantity": one.quantity,
        "refund": one.refund.id if one.refund else None,
        "stripe_refund_id": one.refund.stripe_refund if one.refund else None,
        "request_id": one.request.request_id if one.request else one.row.request_id,
        "was_known": one.was_known,
        "code": one.problem.code if one.problem and told else None,
        "reason": _tell(one) if told else None,
    }


def _write_report(report: Path | None, rows: Sequence[BatchRow]) -> None:
    from stackctl.core.documents import to_csv, to_json
    from stackctl.core.files import replace_file

    if report is None:
        return
    documents = [_row_document(one) for one in rows]
    if report.suffix.lower() == ".json":
        text = to_json(documents, indent=2) + "\n"
    else:
        text = to_csv(COLUMNS, [
            (one["line"], one["state"], one["purchase_id"] or one["named"], one["customer"], one["amount"],
             one["currency"], one["quantity"], one["refund"], one["stripe_refund_id"], one["request_id"], one["code"],
             one["reason"])
            for one in documents
        ])  # fmt: skip
    try:
        replace_file(report, text.encode())
    except OSError as error:
        raise UsageError(
            f"--report: {report} can't be written: {error.strerror}", code="usage",
            hint="the same file again refunds nothing twice, and writes the report",
        ) from error  # fmt: skip


def _finish_dry_run(run: Run, found: Sequence[BatchRow], refused: Sequence[BatchRow]) -> None:
    ready = [one for one in found if one.state == "ready"]

    def show() -> None:
        _show_table(run, found)
        run.console.line()
        run.console.line(f"would refund {_format_sums(ready)} by {format_count(len(ready), 'row', 'rows')}")
        done = sum(one.state == "done" for one in found)
        if done:
            run.console.line(f"{format_count(done, 'row is', 'rows are')} done: nothing would be sent")
        if refused:
            run.console.line(f"{format_count(len(refused), 'row', 'rows')} can't be refunded", "yellow")
        run.console.line("nothing was sent")

    document = {"dry_run": True, "sums": _sum_document(ready), "rows": [_row_document(one) for one in found]}
    run.finish(document, show, ok=not refused, exit_code=_REFUSED)


def _show(run: Run, ended: Sequence[BatchRow], report: Path | None) -> None:
    line, done = run.console.line, [one for one in ended if one.state == "done"]
    others = [one for one in ended if one.state != "done"]
    if begun := [one for one in others if one.problem or one.refund]:
        _show_table(run, begun)
        line()
    before = sum(one.was_known for one in done)
    known = f", {before:,} of them before" if before else ""
    line(f"refunded {_format_sums(done)} by {len(done):,} of {format_count(len(ended), 'row', 'rows')}{known}", "green")
    for state, what in (
        ("refused", "refused"),
        ("unknown", "unknown or not final: `stackctl refunds resume --all` finds out"),
        ("not-done", "not done: the same command goes on with them"),
    ):
        if number := sum(one.state == state for one in others):
            line(f"{format_count(number, 'row', 'rows')} {what}", "yellow")
    if report is not None:
        line(f"report: {report}")


def _show_table(run: Run, rows: Sequence[BatchRow]) -> None:
    """The first ones: those that can't be refunded before those that can, and these before what is done."""
    from stackctl.core.tables import Column
    from stackctl.payments.money import format_money

    ranks = {"ready": 1, "done": 2}
    ordered = sorted(rows, key=lambda one: (ranks.get(one.state, 0), one.row.line))[:SHOWN]
    shown = [
        (
            one.row.line,
            one.purchase.name if one.purchase else one.row.purchase,
            one.purchase.customer if one.purchase else "",
            format_money(one.amount, one.currency) if one.currency else "",
            {"ready": "would be refunded" if not one.was_known else "would be settled", "done": "done"}.get(
                one.state, f"{one.state}: {_tell(one)}"
            ),
        )
        for one in sorted(ordered, key=lambda one: one.row.line)
    ]
    columns = (
        Column("line", right=True),
        Column("purchase", folds=True),
        Column("customer", spare=1),
        Column("amount", right=True),
        Column("what", folds=True),
    )
    run.console.table(columns, shown)
    if len(rows) > SHOWN:
        run.console.line(f"and {len(rows) - SHOWN:,} more; --report FILE has all")
