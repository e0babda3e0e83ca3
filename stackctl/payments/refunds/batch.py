"""Many refunds, side by side: all looked at before any money moves, then each made as one alone is.

Nothing is kept but the ledger: whatever is killed, the same rows lead to the same requests, and these to the same
refunds.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeVar

from stackctl.backend.tenancies import find_tenancy, read_layers
from stackctl.core.errors import OutcomeUnknown, ServiceError, StackctlError, StateError, UsageError
from stackctl.payments.connection import find_account
from stackctl.payments.finding import find_named_purchase
from stackctl.payments.money import format_money
from stackctl.payments.purchases import find_invoice
from stackctl.payments.refunds import execute, ledger
from stackctl.payments.refunds.balance import read_balance
from stackctl.payments.refunds.quantity import check_quantity
from stackctl.payments.refunds.refund_rows import derive_request_id
from stackctl.payments.refunds.request import resolve_entries

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from uuid import UUID

    from stackctl.payments.gateway import Gateway
    from stackctl.payments.purchases import Purchase
    from stackctl.payments.refunds.balance import RefundableBalance
    from stackctl.payments.refunds.ledger import Refund
    from stackctl.payments.refunds.refund_rows import RefundRow
    from stackctl.payments.refunds.request import RefundEntry, RefundRequest
    from stackctl.postgres.connect import Connection

WORKERS = 8  # rows at once, each with a connection of its own
# Calls a second: Stripe allows 100, 25 of one kind, and 25 in all in test mode; others want their share of them.
LIVE_RATE, TEST_RATE = 40, 15
BUSY_PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0)  # seconds before Stripe is asked again that had too many requests
FAILURES_IN_A_ROW = 5  # after which Stripe is taken to be away
T = TypeVar("T")
State = Literal["ready", "done", "refused", "unknown", "not-done"]
_NOTHING_DONE = ("stripe-unreachable", "stripe-failed", "stripe-busy", "stripe-key-refused", "stripe-forbidden")


@dataclass(frozen=True)
class BatchRow:
    """A row, and what is known of it. `ready`: it can be refunded, or goes on being; `done`, `refused` for good,
    `unknown` or not final, `not-done`: nothing came of it, and the same file tries it again.

    `request`: with its request id, and of a subscription its invoice; `refund`: that of the ledger, `was_known`: which
    was there before. `amount`: in the smallest unit of `currency`.
    """

    row: RefundRow
    state: State
    request: RefundRequest | None = None
    purchase: Purchase | None = None
    intent: str | None = None
    amount: int = 0
    quantity: int = 0
    currency: str | None = None
    remaining: tuple[int, int] = (0, 0)  # money and quantity, of the payment as it was looked at
    refund: Refund | None = None
    was_known: bool = False
    problem: StackctlError | None = None


class Pace:
    """Spreads the calls of all threads, so that there are at most `rate` a second."""

    def __init__(self) -> None:
        self.rate = TEST_RATE
        self._lock = threading.Lock()
        self._next = 0.0

    def wait(self) -> None:
        with self._lock:
            now = time.monotonic()
            at = max(now, self._next)
            self._next = at + 1 / self.rate
        time.sleep(max(0.0, at - now))


@dataclass(frozen=True)
class Batch:
    """What the rows are worked at with. `open_session`: a connection; `open_gateway`: Stripe on an account;
    `make_request`: what a row asks for, without its request id."""

    open_session: Callable[[], AbstractContextManager[Connection]]
    open_gateway: Callable[[str], Gateway]
    make_request: Callable[[RefundRow], RefundRequest]
    stopping: threading.Event

    def check(self, rows: Sequence[RefundRow], advance: Callable[[int], None]) -> list[BatchRow]:
        """Look at every row, and at all of a payment's together; no money moves. Raises ServiceError."""
        found = self._run([[BatchRow(row, "ready")] for row in rows], self._check_row, advance)
        if self.stopping.is_set():
            raise KeyboardInterrupt
        return _check_together(sorted(found, key=lambda one: one.row.line))

    def refund(self, rows: Sequence[BatchRow], advance: Callable[[int], None]) -> list[BatchRow]:
        """Refund those that are ready; rows of one purchase in their order. What is not begun stays `ready`."""
        of_purchases = defaultdict[object, list[BatchRow]](list)
        for one in rows:
            if one.state == "ready" and one.purchase is not None:
                of_purchases[one.purchase.tenancy, one.purchase.id].append(one)
        made = {one.row.line: one for one in self._run(list(of_purchases.values()), self._refund_row, advance)}
        return [made.get(one.row.line, one) for one in rows]

    def _run(
        self,
        groups: Sequence[Sequence[BatchRow]],
        work: Callable[[Connection, BatchRow], BatchRow],
        advance: Callable[[int], None],
    ) -> list[BatchRow]:
        """Each group by one thread. An error that is no row's own stops all, and is raised; what was done by then is
        its attribute `done`."""
        waiting: queue.SimpleQueue[Sequence[BatchRow]] = queue.SimpleQueue()
        for group in groups:
            waiting.put(group)
        ended: queue.SimpleQueue[BatchRow | BaseException | None] = queue.SimpleQueue()

        def serve() -> None:
            try:
                with self.open_session() as conn:
                    while not self.stopping.is_set():
                        for one in waiting.get_nowait():
                            if not self.stopping.is_set():
                                ended.put(work(conn, one))
            except queue.Empty:
                pass
            except BaseException as error:  # noqa: BLE001, raised by who waits
                ended.put(error)
            ended.put(None)

        threads = [threading.Thread(target=serve, daemon=True) for _ in range(min(WORKERS, len(groups)))]
        for thread in threads:
            thread.start()
        return self._collect(ended, len(threads), advance)

    def _collect(
        self,
        ended: queue.SimpleQueue[BatchRow | BaseException | None],
        running: int,
        advance: Callable[[int], None],
    ) -> list[BatchRow]:
        found: list[BatchRow] = []
        fault: BaseException | None = None
        failures = 0
        while running:
            try:
                got = ended.get()
            except KeyboardInterrupt:
                self.stopping.set()  # the refunds in hand are ended
                continue
            if got is None:
                running -= 1
            elif isinstance(got, BaseException):
                fault = fault or got
                self.stopping.set()
            else:
                found.append(got)
                advance(1)
                failures = failures + 1 if got.state == "not-done" else 0
                if failures >= FAILURES_IN_A_ROW:
                    self.stopping.set()
                    fault = fault or got.problem
        if fault is not None:
            raise BatchStopped(found) from fault
        return found

    # -- one row

    def _check_row(self, conn: Connection, one: BatchRow) -> BatchRow:
        try:
            return self._patiently(lambda: self._look_at(conn, one.row))
        except ServiceError as error:
            if error.code in _NOTHING_DONE:
                raise
            return replace(one, state="refused", problem=error)
        except (StateError, UsageError) as error:
            return replace(one, state="refused", problem=error)

    def _look_at(self, conn: Connection, row: RefundRow) -> BatchRow:
        tenancy = find_tenancy(conn, row.tenancy) if row.tenancy else None
        named = find_named_purchase(conn, row.purchase, tenancy, self.open_gateway)
        purchase, invoice = named.purchase, row.invoice or named.invoice
        if named.invoice not in (None, invoice):
            raise UsageError(f"{row.purchase} is of invoice {named.invoice}, and not of {invoice}", code="usage")
        if purchase.type == "subscription" and purchase.stripe_id is not None:
            invoice = find_invoice(conn, purchase, invoice)
        elif invoice is not None:
            raise UsageError("an invoice goes with a subscription; this is a one-time purchase", code="usage")
        request = replace(self.make_request(row), request_id=row.request_id, invoice=invoice)
        if row.request_id is None:
            request = replace(request, request_id=derive_request_id(purchase, request), is_derived=True)
        known = execute.find_by_request(conn, purchase, request)
        if known is not None and not known.is_repeatable:
            found = BatchRow(row, "ready", request, purchase, known.intent, known.amount, known.quantity,
                             known.currency, refund=known, was_known=True)  # fmt: skip
            return _judge(found, known) if known.is_settled else found
        balance, entries, _ = self._resolve(conn, purchase, request)
        assert balance.payment is not None, "what has no payment is refused"
        return BatchRow(
            row, "ready", request, purchase, balance.payment.intent, sum(entry.amount for entry in entries),
            sum(entry.quantity for entry in entries), balance.payment.currency,
            (balance.remaining, balance.quantity_left),
        )  # fmt: skip

    def _resolve(
        self, conn: Connection, purchase: Purchase, request: RefundRequest
    ) -> tuple[RefundableBalance, tuple[RefundEntry, ...], Gateway]:
        """What remains, and what is refunded of it; raises what `refunds create` does."""
        account = find_account(conn, read_layers(conn, purchase.tenancy))
        gateway = self.open_gateway(account)
        balance = read_balance(conn, purchase, request.invoice, lambda: (account, gateway))
        entries = resolve_entries(request, balance)
        check_quantity(gateway, balance, entries)
        return balance, entries, gateway

    def _refund_row(self, conn: Connection, one: BatchRow) -> BatchRow:
        try:
            refund, problem = self._patiently(lambda: self._make(conn, one))
        except OutcomeUnknown as error:
            return replace(one, state="unknown", problem=error)
        except ServiceError as error:
            refused = error.code not in _NOTHING_DONE
            return replace(one, state="refused" if refused else "not-done", problem=error)
        except (StateError, UsageError) as error:
            return replace(one, state="refused", problem=error, refund=self._find_again(conn, one))
        return _judge(replace(one, problem=problem), refund)

    def _make(self, conn: Connection, one: BatchRow) -> tuple[Refund, StackctlError | None]:
        """As `refunds create` does it, from what remains now."""
        assert one.purchase is not None, "it was looked at"
        assert one.request is not None, "it was looked at"
        known = execute.find_by_request(conn, one.purchase, one.request)
        if known is not None and not known.is_repeatable:
            gateway = self.open_gateway(known.account)
            outcome = execute.settle_refund(conn, gateway, known, asked_anew=True)
            return outcome.refund, outcome.problem
        balance, entries, gateway = self._resolve(conn, one.purchase, one.request)
        if (sum(entry.amount for entry in entries), sum(entry.quantity for entry in entries)) != (
            one.amount,
            one.quantity,
        ):
            raise StateError(
                "what remains has changed since all rows were looked at; nothing was refunded", code="changed-meanwhile"
            )
        refund = execute.plan_refund(conn, balance, entries, one.request)
        outcome = execute.execute_refund(conn, gateway, refund, balance)
        return outcome.refund, outcome.problem

    def _find_again(self, conn: Connection, one: BatchRow) -> Refund | None:
        """The ledger's row of one that was refused, if it came to have one."""
        assert one.request is not None, "it was looked at"
        assert one.purchase is not None, "it was looked at"
        found = ledger.find_refunds(conn, tenancy=one.purchase.tenancy, request=one.request.request_id)
        return found[0] if found else None

    def _patiently(self, ask: Callable[[], T]) -> T:
        """Again after a while, where Stripe had too many requests: then nothing was done."""
        for pause in BUSY_PAUSES:
            try:
                return ask()
            except ServiceError as error:
                if error.code != "stripe-busy" or self.stopping.wait(pause):
                    raise
        return ask()


class BatchStopped(Exception):
    """Something that is no row's own, its cause, has stopped all. `done`: what was done by then."""

    def __init__(self, done: Sequence[BatchRow]) -> None:
        super().__init__("stopped")
        self.done = done


def _judge(one: BatchRow, refund: Refund) -> BatchRow:
    """What a refund of the ledger says of its row."""
    if refund.status == "succeeded" and refund.revoked:
        return replace(one, state="done", refund=refund, problem=None)
    if refund.holds_money:
        return replace(one, state="unknown", refund=refund)
    return replace(one, state="not-done" if refund.is_repeatable else "refused", refund=refund)


def _check_together(rows: Sequence[BatchRow]) -> list[BatchRow]:
    """Refuse what each row alone may ask for, and all together may not."""
    doubles = _find_doubles(rows)
    return list(
        _refuse_sums(
            replace(one, state="refused", problem=StateError(doubles[one.row.line], code="doubled-row"))
            if one.row.line in doubles
            else one
            for one in rows
        )
    )


def _find_doubles(rows: Sequence[BatchRow]) -> dict[int, str]:
    """What is wrong with rows of the request of another one, by line; and with new ones without a request id of their
    own that come to what another one does: `50%` and `5.10` may."""
    found: dict[int, str] = {}
    of_requests: dict[tuple[UUID, str | None], int] = {}
    of_refunds: dict[tuple[str | None, int, int], int] = {}
    for one in sorted(rows, key=lambda one: one.row.request_id is None and not one.was_known):
        if one.purchase is None or one.request is None:
            continue
        line = of_requests.setdefault((one.purchase.tenancy, one.request.request_id), one.row.line)
        if one.state != "refused":
            same = of_refunds.setdefault((one.intent, one.amount, one.quantity), one.row.line)
            line = same if one.request.is_derived and not one.was_known else line
        if line != one.row.line:
            found[one.row.line] = (
                f"it asks for the same as line {line}; with a request_id each, both are refunded"
                if one.request.is_derived
                else f"its request id is that of line {line}, too"
            )
    return found


def _refuse_sums(rows: Iterator[BatchRow]) -> Iterator[BatchRow]:
    """Of one payment; `full` beside other rows is not what was looked at any more."""
    taken = defaultdict[str | None, tuple[int, int]](lambda: (0, 0))
    for one in rows:
        if one.state != "ready" or one.was_known:
            yield one
            continue
        amount, quantity = taken[one.intent]
        money, left = one.remaining
        taken[one.intent] = amount + one.amount, quantity + one.quantity
        if amount + one.amount > money or quantity + one.quantity > left:
            what = f"with the rows above it, it is more than the {format_money(money, one.currency or '')} that remain"
            yield replace(one, state="refused", problem=StateError(what, code="amount-over-remainder"))
            continue
        yield one
