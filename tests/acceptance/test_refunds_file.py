"""stackctl refunds create --file: a row a refund, looked at together, made side by side, and never twice."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from stackctl.payments.money import parse_amount
from stackctl.payments.refunds import batch, refund_rows
from stackctl.payments.refunds.request import GRANT, AskedEntry, RefundRequest
from tests.backend import ended
from tests.shop import ACCOUNT, made, refused

if TYPE_CHECKING:
    from pathlib import Path

    from tests.backend import Outcome
    from tests.shop import Shop
    from tests.stripe_fake import Running

HURRIED = "from stackctl.payments.refunds import batch; batch.TEST_RATE = 10_000; batch.BUSY_PAUSES = (0.05, 0.05)"


def write(shop: Shop, *lines: str, name: str = "rows.csv", encoding: str = "utf-8") -> Path:
    path = shop.directory / name
    path.write_bytes("\n".join(lines).encode(encoding))
    return path


def refund_file(shop: Shop, path: Path, *arguments: str, point: str | None = None) -> Outcome:
    given = ("refunds", "create", "--file", str(path), *arguments, "--json")
    return ended(shop.start(*given, point=point, before=HURRIED))


def states(outcome: Outcome) -> list[str]:
    return [one["state"] for one in outcome.json["rows"]]


def test_rows_as_spreadsheets_write_them(shop: Shop, stripe: Running) -> None:
    """A byte order mark, semicolons, headings in any case; the same rows again, in whatever file, are nothing new."""
    first, second, third = shop.buy(1999), shop.buy(1999), shop.subscribe(3000, 3)
    path = write(
        shop,
        "Purchase;Amount;Quantity;Note;Request ID",
        f"{first};FULL;;angry;",
        f"{shop.row(second, 'stripePaymentIntentId')};5.00;1;;own",
        f"sub_{third};10;1;;",
        ";;;;",
        encoding="utf-8-sig",
    )
    dry = refund_file(shop, path, "--dry-run")
    assert (dry.code, dry.json["sums"], states(dry)) == (0, {"usd": "34.99"}, ["ready"] * 3)
    assert (stripe.calls("POST"), shop.one("SELECT count(*) FROM stackctl.refund")) == ([], 0)
    asked = refund_file(shop, path)
    assert refused(asked) == (5, "confirmation-required")
    assert "Refund 34.99 USD (test money) by 3 rows" in " ".join(asked.json["error"]["message"].split())
    report = shop.directory / "report.csv"
    result = refund_file(shop, path, "--yes", "--report", str(report), "--reason", "duplicate")
    assert (result.code, states(result)) == (0, ["done"] * 3)
    assert sorted(one["amount"] for one in made(stripe)) == [500, 1000, 1999]
    assert {one["reason"] for one in made(stripe)} == {"duplicate"}
    assert shop.one("SELECT note FROM stackctl.refund WHERE amount = 1999") == "angry"
    assert report.read_text().splitlines()[1].startswith(f"2,done,{first},u1,19.99,usd,1,")
    calls = len(stripe.calls("POST"))
    again = refund_file(shop, path, "--yes")
    assert (again.code, states(again), [one["was_known"] for one in again.json["rows"]]) == (
        0,
        ["done"] * 3,
        [True] * 3,
    )
    moved = write(
        shop, "amount,purchase,note", f"10.0,{third},x", name="b.csv"
    )  # no quantity: it asks for something else
    assert states(refund_file(shop, moved, "--dry-run")) == ["ready"]
    moved = write(shop, "amount,purchase,quantity", f"10.0,in_0_{third},1", name="b.csv")
    assert states(refund_file(shop, moved, "--yes")) == ["done"]
    assert len(stripe.calls("POST")) == calls
    shop.agree()


def test_bad_rows_are_found_before_any_money_moves(shop: Shop, stripe: Running) -> None:
    good = shop.buy(1999)
    head = "purchase,amount,quantity,reason,request_id"
    bad = write(shop, head, f"{good},5,,,a", f"{good},1.234567,,,b", ",5,,,c", f"{good},,,,d", f"{good},5,x,,e",
                f"{good},5,,because,f", f"{good},6,,,a", f"{good},0,,,g", f"{good},0.00,00,,h")  # fmt: skip
    result = refund_file(shop, bad, "--yes")
    assert refused(result) == (3, "invalid-refund-row")
    assert [one["line"] for one in result.json["error"]["details"]["rows"]] == list(range(3, 11))
    assert "that of line 2, too" in result.json["error"]["message"]
    for lines in (("purchase,amount", "x"), ("purchase",), ("purchase,amount",), (), ("purchase,amuont", "x,5"),
                  ("purchase,amount", '"x,5')):  # fmt: skip
        assert refused(refund_file(shop, write(shop, *lines), "--yes")) == (3, "invalid-refund-row")
    assert refused(refund_file(shop, write(shop, head, encoding="utf-16-le"), "--yes"))[0] == 3
    assert refused(refund_file(shop, shop.directory / "none.csv", "--yes")) == (2, "usage")
    assert refused(shop.run("refunds", "create", good, "--file", str(bad), "--json")) == (2, "usage")
    assert refused(shop.run("refunds", "create", "--full", "--json")) == (2, "usage")
    assert stripe.calls() == []


def test_rows_that_can_not_be_refunded_stop_all_or_are_passed_over(shop: Shop, stripe: Running) -> None:
    good, small, test_mode = shop.buy(1999), shop.buy(1000), shop.purchase(creationSource="TEST_MODE")
    scheduled = shop.subscribe(3000, 3)
    shop.schedule(scheduled)
    path = write(shop, "purchase,amount", f"{good},5.00", f"{good},full", f"{good},5", f"{small},6", f"{small},7",
                 f"{test_mode},full", f"{scheduled},full", "pi_nobody,1")  # fmt: skip
    report = shop.directory / "report.json"
    result = refund_file(shop, path, "--yes", "--report", str(report))
    assert refused(result) == (5, "refund-rows-refused")
    expected = ["ready", "refused", "refused", "ready", "refused", "refused", "refused", "refused"]
    assert [one["state"] for one in json.loads(report.read_text())] == expected
    codes = [one["code"] for one in result.json["error"]["details"]["rows"]]
    assert codes == ["amount-over-remainder", "doubled-row", "amount-over-remainder",
                     "test-mode-purchase-non-refundable", "subscription-scheduled", "purchase-not-found"]  # fmt: skip
    assert stripe.calls("POST") == []
    rest = refund_file(shop, path, "--yes", "--skip-refused")
    assert (rest.code, rest.json["counts"]["done"], rest.json["sums"]) == (5, 2, {"usd": "11.00"})
    assert sorted(one["amount"] for one in made(stripe)) == [500, 600]
    shop.agree()


def codes_of(outcome: Outcome) -> list[tuple[int, str]]:
    return [(one["line"], one["code"]) for one in outcome.json["error"]["details"]["rows"]]


# As if another process came to have written the rows' refunds just after this one has looked for them.
UNSEEN = f"""{HURRIED}
from stackctl.payments.refunds import execute
find, calls = execute.find_by_request, []
def find_late(*given):
    calls.append(1)
    return find(*given) if len(calls) > 2 else None
execute.find_by_request = find_late
"""


def test_a_row_that_was_refunded_moments_ago(shop: Shop, stripe: Running) -> None:
    """By hand or by another file, under whatever request; but not by the same row, nor by the others of its file."""
    bought = shop.buy(4080)
    head = "purchase,amount,quantity,request_id"
    assert shop.refund(bought, "--amount", "10.20", "--request-id", "by hand").code == 0
    path = write(shop, head, f"{bought},25%,,", f"{bought},1.00,,", f"{bought},2.00,,")
    result = refund_file(shop, path, "--yes")
    assert (refused(result), codes_of(result)) == ((5, "refund-rows-refused"), [(2, "refunded-moments-ago")])
    assert "--again" in result.json["error"]["hint"]
    assert len(made(stripe)) == 1
    assert states(refund_file(shop, path, "--yes", "--again")) == ["done"] * 3
    # What this file has made is done before, without a word of `--again`; the same written otherwise is not.
    assert states(refund_file(shop, path, "--yes")) == ["done"] * 3
    other = write(shop, head, f"{bought},10.2,,")
    assert codes_of(refund_file(shop, other, "--yes")) == [(2, "refunded-moments-ago")]
    assert states(refund_file(shop, write(shop, head, f"{bought},10.2,,own"), "--yes")) == ["done"]
    assert [one["amount"] for one in made(stripe)] == [1020, 1020, 100, 200, 1020]
    one = write(shop, head, f"{bought},1,,")
    late = ended(shop.start("refunds", "create", "--file", str(one), "--yes", "--json", before=UNSEEN))
    assert (late.code, len(made(stripe))) == (0, 5), late
    shop.agree()


def test_rows_that_come_to_the_same(shop: Shop, stripe: Running) -> None:
    """However they are written, and whether they are looked at or done before."""
    first, second, third = shop.buy(1020), shop.buy(1020, 2), shop.subscribe(3000, 3)
    head = "purchase,amount,quantity,invoice,request_id"
    path = write(shop, head, f"{first},50%,,,", f"{first},5.10,,,", f"{second},1.00,,,", f"{second},1,0,,",
                 f"{str(second).upper()}, 1.0 ,00,,", f"{second},1.000,1,,", f"{third},2,,,",
                 f"sub_{third},2.0,0,in_0_{third},", f"{third},4,,,", f"{third},4.00,,,own",
                 f"{third},4.0,,,mine")  # fmt: skip
    doubled = [3, 5, 6, 9, 10]  # 7 asks for a quantity, too; 10 has no id, and others ask for the same
    assert codes_of(refund_file(shop, path, "--yes")) == [(line, "doubled-row") for line in doubled]
    assert made(stripe) == []
    for _ in range(2):
        result = refund_file(shop, path, "--yes", "--skip-refused", "--again")
        assert [one["line"] for one in result.json["rows"] if one["state"] == "refused"] == doubled
        assert sorted(one["amount"] for one in made(stripe)) == [100, 100, 200, 400, 400, 510]
    shop.agree()


POINTS = (
    "refunds.execute:plan_refund:after",
    "gateway:Gateway.create_refund:before",
    "gateway:Gateway.create_refund:after",
    "refunds.ledger:record_status:after",
    "refunds.batch:_judge:after",
)


@pytest.mark.parametrize("point", POINTS)
def test_killed_and_run_again(shop: Shop, stripe: Running, point: str) -> None:
    bought = [shop.buy(1999) for _ in range(12)]
    path = write(shop, "purchase,amount", *(f"{one},{place + 1}.00" for place, one in enumerate(bought)))
    killed = refund_file(shop, path, "--yes", point=f"stackctl.payments.{point}")
    assert killed.code == -9
    result = refund_file(shop, path, "--yes")
    assert (result.code, states(result)) == (0, ["done"] * 12), result
    assert sorted(one["amount"] for one in made(stripe)) == [100 * (place + 1) for place in range(12)]
    shop.agree()


INTERRUPTED = f"""{HURRIED}
import os, signal
from stackctl.payments.refunds import execute
plan, planned = execute.plan_refund, []
def interrupt(*given):
    planned.append(1)
    if len(planned) == 3:
        os.kill(os.getpid(), signal.SIGTERM)
    return plan(*given)
execute.plan_refund = interrupt
"""


def test_a_signal_ends_it_with_the_rows_in_hand(shop: Shop, stripe: Running) -> None:
    """What was done is said, and the same command goes on with the rest."""
    bought = [shop.buy(1999) for _ in range(40)]
    path, report = write(shop, "purchase,amount", *(f"{one},5" for one in bought)), shop.directory / "report.json"
    command = ("refunds", "create", "--file", str(path), "--yes", "--report", str(report))
    stopped = ended(shop.start(*command, before=INTERRUPTED))
    counts = [one["state"] for one in json.loads(report.read_text())]
    assert (stopped.code, counts.count("done") + counts.count("not-done")) == (130, 40), stopped
    assert 0 < counts.count("done") == len(made(stripe)) < 40
    assert "not begun" not in stopped.stdout, "what is left is counted, not listed"
    assert refund_file(shop, path, "--yes").code == 0
    assert len(made(stripe)) == 40
    shop.agree()


def test_faults_of_stripe(shop: Shop, stripe: Running) -> None:
    """Too many requests are waited for; one that Stripe refuses is told; what comes to nothing is tried by the next."""
    bought = [shop.buy(1999) for _ in range(6)]
    path = write(shop, "purchase,amount", *(f"{one},5.00" for one in bought))
    stripe.fault("429", method="POST")
    stripe.fault("429", nth=3, method="GET")
    stripe.fault("drop-after", nth=3, method="POST")
    assert refund_file(shop, path, "--yes").code == 0
    more = write(shop, "purchase,amount", *(f"{one},6.00" for one in bought))
    stripe.state.next_statuses.extend(["pending", "failed"])
    result = refund_file(shop, more, "--yes")
    assert (result.code, result.json["counts"]) == (6, {"done": 4, "refused": 1, "unknown": 1, "not-done": 0})
    gone = write(shop, "purchase,amount", *(f"{one},7.00" for one in bought))
    for _ in range(60):
        stripe.fault("401", method="POST")
    result = refund_file(shop, gone, "--yes")
    assert (result.code, result.json["counts"]["not-done"], made(stripe)[-1]["amount"]) == (4, 6, 600)
    stripe.fake.faults.clear()
    assert refund_file(shop, gone, "--yes").code == 0
    assert len(made(stripe)) == 18


def test_it_is_read_from_stdin(shop: Shop, stripe: Running) -> None:
    bought = shop.buy(1999)
    text = f"purchase,amount\n{bought},1\n"
    command = [sys.executable, "-m", "stackctl", "refunds", "create", "--file", "-", "--yes"]
    shop.write()
    done = subprocess.run(command, input=text, text=True, cwd=shop.directory, capture_output=True, check=False)
    assert (done.returncode, "refunded 1.00 USD by 1 of 1 row" in done.stdout) == (0, True), done
    assert [one["amount"] for one in made(stripe)] == [100]


def test_calls_are_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight threads ask at once, and no more than `rate` a second get their turn."""
    now, slept = 100.0, list[float]()
    monkeypatch.setattr(batch.time, "monotonic", lambda: now)
    monkeypatch.setattr(batch.time, "sleep", slept.append)
    pace = batch.Pace()
    for _ in range(3 * pace.rate):
        pace.wait()
    assert sum(one < 0.999 for one in slept) == pace.rate
    assert sum(one < 1.999 for one in slept) == 2 * pace.rate


def test_ten_thousand_rows_are_read_in_no_time() -> None:
    lines = "\r\n".join(f'"pi_{number}";5.00;;r{number}' for number in range(10_000))
    text = f"sep=;\r\nPURCHASE;amount;quantity;request id\r\n{lines}"
    began = time.process_time()
    found = refund_rows.parse_refund_rows("x.csv", text.encode("utf-16"), lambda row: None, pytest.fail)
    assert (len(found), found[-1].request_id) == (10_000, "r9999")
    assert time.process_time() - began < 2


def test_a_request_id_is_made_of_what_is_asked() -> None:
    """And of `full`, no quantity is all that is left, and 0 is none."""
    purchase: Any = type("P", (), {"tenancy": "t", "id": "p"})

    def derive(amount: str, quantity: int | None, note: str | None = None) -> str:
        entries = (AskedEntry(GRANT, quantity, parse_amount(amount)),)
        return refund_rows.derive_request_id(purchase, RefundRequest(entries, note=note))

    made_of = {derive("5", None, "a"), derive("5.00", None), derive("5.0", 0, "b")}
    assert len(made_of) == 1
    assert ACCOUNT not in str(made_of)
    full = {refund_rows.derive_request_id(purchase, RefundRequest(None, revoke)) for revoke in (None, 0, 1)}
    assert len(made_of | full | {derive("5", 1), derive("5%", None)}) == 6
