"""Each command against a control plane: what it asks for, what it prints, and its exit code."""

import json

import pytest

from cli.main import run
from cli.output import ExitCode
from cli.qr import invoice_uri, qr
from core.error import BudgetExceeded, KeyReused, Paused
from tests.unit.cli.node_part import Steps, running
from wallet.error import InvoiceUnfit, PaymentUnknown

JOB = {"job_id": "j1", "kind": 5001, "state": "working", "seller": "ab" * 32, "provider": "market"}
DONE = JOB | {"state": "delivered", "closed": True, "paid_msat": 21_000, "cost_msat": 23_000, "cost_uusd": 14_950}
FAILED = JOB | {"state": "failed", "closed": True, "error": "No seller offered it.", "cost_msat": 0}
BUY = ("buy", "--kind", "5001", "--input", "a text")


def bought(*states):
    return {
        "compute/new": {"job_id": "j1", "status": "pending"},
        "compute/jobs/j1/status": Steps(list(states)),
        "compute/jobs/j1/result": "a summary\n",
    }


async def test_buy_prints_the_result_on_stdout_and_the_seller_and_the_price_on_stderr(tmp_path, capsys):
    async with running(tmp_path, bought(JOB, DONE)) as node:
        assert await node.vendo(*BUY, "--max-usd", "0.05", "--param", "lang=en", "--timeout", "9") == 0
    shown = capsys.readouterr()
    assert shown.out == "a summary\n"
    assert f"Seller: {'ab' * 32}. Paid: 21 sat, 23 sat with fees ($0.014950)." in shown.err
    path, body, key = node.asked[0]
    assert path == "compute/new"
    assert body == {
        "kind": 5001,
        "input": "a text",
        "params": {"lang": "en"},
        "max_usd": "0.05",
        "timeout_s": 9,
    }
    assert f"key: {key}" in shown.err


async def test_buy_with_json_prints_one_object(tmp_path, capsys):
    async with running(tmp_path, bought(DONE)) as node:
        assert await node.vendo(*BUY, "--key", "k", "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["result"], answer["key"], answer["job_id"], answer["paid_msat"]) == ("a summary", "k", "j1", 21_000)
    assert node.asked[0][2] == "k"


async def test_a_job_that_fails_is_an_error_that_says_what_became_of_the_money(tmp_path, capsys):
    async with running(tmp_path, bought(FAILED)) as node:
        assert await node.vendo(*BUY) == ExitCode.UNAVAILABLE
        assert await node.vendo(*BUY, "--json") == ExitCode.UNAVAILABLE
    shown = capsys.readouterr()
    assert "No seller offered it. Nothing was paid." in shown.err
    assert json.loads(shown.out)["error"]["code"] == "dvm.job_failed"


async def test_a_failed_job_whose_money_is_still_out_says_so(tmp_path, capsys):
    view = FAILED | {"cost_msat": 23_000, "closed": False}
    async with running(tmp_path, bought(view)) as node:
        assert await node.vendo(*BUY) == ExitCode.UNAVAILABLE
    assert "23 sat are locked to a seller until they are claimed or refunded." in capsys.readouterr().err


@pytest.mark.parametrize("error", [BudgetExceeded("Too dear."), KeyReused(), Paused()], ids=lambda error: error.code)
async def test_a_purchase_that_the_gate_refuses_exits_77_with_its_code(tmp_path, capsys, error):
    async with running(tmp_path, bought(DONE) | {"compute/new": error}) as node:
        assert await node.vendo(*BUY, "--json") == ExitCode.REFUSED
    assert json.loads(capsys.readouterr().out)["error"]["code"] == error.code


@pytest.mark.parametrize(
    "words",
    [
        ("buy", "--kind", "5001"),
        ("buy", "--kind", "4999", "--input", "x"),
        ("buy", "--input", "x"),
        (*BUY, "--param", "noequals"),
        (*BUY, "--max-msat", "-1"),
        (*BUY, "--input-file", "/no/such/file"),
        ("wallet", "deposit", "0"),
        ("wallet", "send", "many"),
        ("nosuch",),
        ("status", "--nosuch"),
    ],
    ids=" ".join,
)
def test_what_is_not_valid_exits_64_with_one_error_object(words, tmp_path, capsys):
    assert run([*words, "--home", str(tmp_path), "--json"]) == ExitCode.USAGE
    assert json.loads(capsys.readouterr().out)["error"]["message"]


async def test_the_input_can_come_from_a_file(tmp_path):
    (tmp_path / "text").write_text("from a file")
    async with running(tmp_path, bought(DONE)) as node:
        words = ("buy", "--kind", "5001", "--input-file", str(tmp_path / "text"), "--input", "and this")
        assert await node.vendo(*words) == 0
    assert node.asked[0][1]["input"] == [
        {"data": "and this", "type": "text"},
        {"data": "from a file", "type": "text"},
    ]


async def test_jobs_are_listed_with_what_was_paid(tmp_path, capsys):
    async with running(tmp_path, bought(DONE)) as node:
        assert await node.vendo("jobs") == 0
        shown = capsys.readouterr().out
        assert await node.vendo("jobs", "--json") == 0
    assert shown.splitlines()[1].split()[:4] == ["j1", "5001", "delivered", "21"]
    assert json.loads(capsys.readouterr().out)[0]["job_id"] == "j1"


async def test_what_is_for_sale_is_listed(tmp_path, capsys):
    service = {
        "kind": 5001, "price_msat": 21_000, "provider": "summarizer", "unit": "msat", "price": 21_000, "per": "job",
        "minimum": None, "maximum": None, "state": "selling",
    }  # fmt: skip
    async with running(tmp_path, {"sell": [service], "market/sales": []}) as node:
        assert await node.vendo("sell") == 0
        assert capsys.readouterr().out.splitlines()[1].split() == ["5001", "21", "sat", "summarizer", "selling"]
        assert await node.vendo("sell", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"services": [service], "sales": []}


async def test_status_pause_resume_and_send(tmp_path, capsys):
    answers = {
        "status": {"state": "running"},
        "ctl/pause": {"paused": True},
        "ctl/resume": {"paused": False},
        "inbox": {"envelope_id": "e", "status": "queued"},
    }
    async with running(tmp_path, answers) as node:
        for words in (("status",), ("pause",), ("resume",), ("send", "agent", "hello", "--key", "k")):
            assert await node.vendo(*words, "--json") == 0
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == list(answers.values())
    assert node.asked[2] == ("inbox", {"text": "hello"}, "k")


def _listed(name, reason=""):
    shown = {"name": name, "program": "buyer", "status": "stopped", "strangers": "none", "public": True, "ticks": 1}
    return shown | {"origin": "left", "npub": "npub1x", "reason": reason}


async def test_a_long_list_of_agents_is_asked_for_in_pages(tmp_path, capsys):
    first = [_listed(f"a{number:04}") for number in range(1_000)]
    pages = Steps([first, [_listed("b", "agent.unconfigured: why")]] * 2)
    async with running(tmp_path, {"agents/list": pages}) as node:
        assert await node.vendo("agent", "list", "--json") == 0
        assert [one["name"] for one in json.loads(capsys.readouterr().out)][-2:] == ["a0999", "b"]
        assert await node.vendo("agent", "list") == 0
    assert node.asked[0][:2] == ("agents/list", {"after": "a0999"})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1_003
    assert lines[-1].endswith("agent.unconfigured: why")


async def test_a_list_of_no_agents_says_so(tmp_path, capsys):
    async with running(tmp_path, {"agents/list": []}) as node:
        assert await node.vendo("agent", "list") == 0
        assert await node.vendo("agent", "list", "--json") == 0
    assert capsys.readouterr() == ("[]\n", "There are no agents.\n")


async def test_an_agent_is_given_other_settings_from_a_file(tmp_path, capsys):
    (tmp_path / "new.json").write_text('{"about": "anew"}')
    async with running(tmp_path, {"agents/fresh/settings": {"about": "anew"}}) as node:
        assert await node.vendo("agent", "set", "fresh", "--settings", str(tmp_path / "new.json"), "--json") == 0
        assert json.loads(capsys.readouterr().out) == {"about": "anew"}
        (tmp_path / "new.json").write_text("[]")
        assert await node.vendo("agent", "set", "fresh", "--settings", str(tmp_path / "new.json")) == ExitCode.USAGE
    assert [json.loads(body) for _, body, _ in node.asked] == [{"about": "anew"}]


BALANCE = {
    "balances": [{"mint": "http://m", "unit": "sat", "live": 5, "reserved": 1, "locked": 2}],
    "live_sat": 5,
}


async def test_the_balance_is_shown_per_mint(tmp_path, capsys):
    async with running(tmp_path, {"wallet/balance": BALANCE}) as node:
        assert await node.vendo("wallet", "balance") == 0
    assert capsys.readouterr().out.splitlines()[1].split() == ["5", "1", "2", "sat", "http://m"]


async def test_a_deposit_prints_the_invoice_alone(tmp_path, capsys):
    made = {"op_id": "o1", "invoice": "lnbc1x", "state": "waiting", "mint": "http://m"}
    async with running(tmp_path, {"wallet/deposit": made}) as node:
        assert await node.vendo("wallet", "deposit", "100", "--mint", "http://m") == 0
    assert capsys.readouterr().out == "lnbc1x\n"
    assert node.asked[0][1] == {"sat": 100, "mint": "http://m"}


async def test_a_deposit_shows_the_invoice_as_a_code_where_it_is_wanted(tmp_path, capsys):
    made = {"op_id": "o1", "invoice": "lnbc1invoice", "state": "waiting"}
    async with running(tmp_path, {"wallet/deposit": made}) as node:
        assert await node.vendo("wallet", "deposit", "100", "--qr") == 0
        shown = capsys.readouterr()
        assert shown.out == "lnbc1invoice\n"
        assert qr(invoice_uri("lnbc1invoice")) in shown.err
        assert await node.vendo("wallet", "deposit", "100", "--no-qr") == 0
        assert "\u2588" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("state", "by_hand"),
    [("done", False), ("unknown", False), ("wallet.unknown", False), ("nwc.unreachable", False),
     ("lightning.limit", False), ("lightning.failed", True)],
)  # fmt: skip
async def test_only_a_deposit_whose_payment_failed_is_to_be_paid_by_hand(tmp_path, capsys, state, by_hand):
    made = {"op_id": "o1", "invoice": "lnbc1x", "state": "waiting", "payment": "p", "payment_state": state}
    async with running(tmp_path, {"wallet/deposit": made}) as node:
        assert await node.vendo("wallet", "deposit", "100", "--from-lightning", "--qr") == 0
    said = capsys.readouterr()
    assert ("by hand" in said.err, "Pay this invoice" in said.err, "█" in said.err or "▀" in said.err) == (by_hand,) * 3
    assert ("lnbc1x" in said.out) is by_hand


async def test_a_deposit_can_be_waited_for(tmp_path, capsys):
    made = {"op_id": "o1", "invoice": "lnbc1x", "state": "waiting", "mint": "http://m"}
    states = Steps([made, made | {"state": "done"}])
    async with running(tmp_path, {"wallet/deposit": made, "wallet/operations/o1": states}) as node:
        assert await node.vendo("wallet", "deposit", "100", "--wait", "10", "--json") == 0
        assert json.loads(capsys.readouterr().out)["state"] == "done"
        node.answers["wallet/operations/o1"] = made
        assert await node.vendo("wallet", "deposit", "100", "--wait", "0.1") == ExitCode.TEMPORARY
        assert "was not paid within 0.1 s" in capsys.readouterr().err
        node.answers["wallet/operations/o1"] = made | {"state": "refused", "reason": "It expired."}
        assert await node.vendo("wallet", "deposit", "100", "--wait", "1") == ExitCode.TEMPORARY
        assert "It expired." in capsys.readouterr().err


async def test_a_token_that_is_sent_is_printed_alone_and_its_key_is_told(tmp_path, capsys):
    async with running(tmp_path, {"wallet/send": {"op_id": "o", "state": "done", "token": "cashuBx"}}) as node:
        assert await node.vendo("wallet", "send", "5") == 0
        shown = capsys.readouterr()
        assert shown.out == "cashuBx\n"
        assert f"key: {node.asked[0][2]}" in shown.err
        node.answers["wallet/send"] = {"op_id": "o", "state": "unknown"}
        assert await node.vendo("wallet", "send", "5", "--key", "k") == ExitCode.TEMPORARY
    assert "Ask again with --key k." in capsys.readouterr().err


async def test_a_token_may_be_locked_to_a_key(tmp_path):
    async with running(tmp_path, {"wallet/send": {"op_id": "o", "state": "done", "token": "cashuBx"}}) as node:
        assert await node.vendo("wallet", "send", "5", "--lock", "ab" * 32) == 0
        assert node.asked[0][1] == {"sat": 5, "lock": "ab" * 32}


WITHDRAWN = {"op_id": "o", "state": "done", "amount_sat": 100, "fee_sat": 2, "preimage": "ab" * 32, "mint": "http://m"}
PLAN = {"mint": "http://m", "amount_sat": 100, "max_fee_sat": 4, "total_sat": 104}


async def test_a_withdrawal_shows_its_amount_and_largest_fee_and_asks(tmp_path, capsys, monkeypatch):
    import io

    answers = {"wallet/prepare": PLAN, "wallet/withdraw": WITHDRAWN}
    async with running(tmp_path, answers) as node:
        monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
        assert await node.vendo("wallet", "withdraw", "lnbc1x", "--max-fee", "4", "--mint", "http://m") == 0
        shown = capsys.readouterr()
        assert "Pay 100 sat and 4 sat of fees at most, from http://m?" in shown.err
        assert shown.out.strip() == f"100 sat paid, 2 sat of fees. Receipt: {'ab' * 32}"
        body = {"invoice": "lnbc1x", "max_fee_sat": 4, "mint": "http://m"}
        assert [(path, asked) for path, asked, _ in node.asked] == [("wallet/prepare", body), ("wallet/withdraw", body)]
        for no in ("n\n", ""):
            monkeypatch.setattr("sys.stdin", io.StringIO(no))
            assert await node.vendo("wallet", "withdraw", "lnbc1x") != 0
        assert [path for path, _, _ in node.asked].count("wallet/withdraw") == 1
        assert await node.vendo("wallet", "withdraw", "lnbc1x", "--yes") == 0
        assert await node.vendo("wallet", "withdraw", "lnbc1x", "--json") == 0
        assert [path for path, _, _ in node.asked][-2:] == ["wallet/withdraw"] * 2


async def test_an_invoice_can_come_from_standard_input(tmp_path, monkeypatch):
    import io

    monkeypatch.setattr("sys.stdin", io.StringIO("lnbc1x\n"))
    async with running(tmp_path, {"wallet/withdraw": WITHDRAWN}) as node:
        assert await node.vendo("wallet", "withdraw", "-", "--yes") == 0
    assert node.asked[0][1] == {"invoice": "lnbc1x"}


async def test_a_withdrawal_that_is_not_known_is_called_unknown_with_what_to_do(tmp_path, capsys):
    async with running(tmp_path, {"wallet/withdraw": PaymentUnknown()}) as node:
        assert await node.vendo("wallet", "withdraw", "lnbc1x", "--yes", "--key", "k") == ExitCode.TEMPORARY
        shown = capsys.readouterr().err
        assert "Pay it in no other way until this is known. Ask again with --key k" in shown
        assert "[wallet.unknown]" in shown
        node.answers["wallet/withdraw"] = Steps([PaymentUnknown(), {"op_id": "o", "state": "unknown"}, WITHDRAWN])
        words = ("wallet", "withdraw", "lnbc1x", "--yes", "--key", "k", "--wait", "30", "--json")
        assert await node.vendo(*words) == 0
        assert json.loads(capsys.readouterr().out)["preimage"] == "ab" * 32
    assert {key for _, _, key in node.asked} == {"k"}


async def test_with_a_key_of_then_a_withdrawal_is_asked_for_again_though_its_invoice_has_expired(tmp_path, capsys):
    async with running(tmp_path, {"wallet/prepare": InvoiceUnfit(), "wallet/withdraw": WITHDRAWN}) as node:
        assert await node.vendo("wallet", "withdraw", "lnbc1x", "--key", "k") == 0
        assert await node.vendo("wallet", "withdraw", "lnbc1x") == ExitCode.USAGE
    assert "[wallet.invoice_unfit]" in capsys.readouterr().err


async def test_a_token_can_come_from_standard_input(tmp_path, monkeypatch, capsys):
    import io

    monkeypatch.setattr("sys.stdin", io.StringIO("cashuBx\n"))
    async with running(tmp_path, {"wallet/receive": {"op_id": "o", "state": "done", "amount_sat": 4}}) as node:
        assert await node.vendo("wallet", "receive", "-", "--json") == 0
    assert node.asked[0][1] == {"token": "cashuBx"}


async def test_an_audit_with_differences_exits_65(tmp_path, capsys):
    async with running(tmp_path, {"wallet/audit": {"clean": True, "differences": [], "mints": []}}) as node:
        assert await node.vendo("wallet", "audit") == 0
        node.answers["wallet/audit"] = {"clean": False, "differences": ["1 sat is missing"], "mints": []}
        assert await node.vendo("wallet", "audit") == ExitCode.DATA
    assert capsys.readouterr().out.splitlines()[-1] == "1 sat is missing"


async def test_files_are_listed_read_written_called_and_watched(tmp_path, capsys):
    async with running(tmp_path, {"goals/one": '{"a": 1}', "note": "plain"}) as node:
        assert await node.vendo("ls", "/goals") == 0
        assert capsys.readouterr().out.splitlines()[-1].split()[:2] == ["-rwcf-", "one"]
        assert await node.vendo("cat", "/note", "--agent", "agent") == 0
        assert capsys.readouterr().out == "plain"
        assert await node.vendo("cat", "/goals/one", "--json") == 0
        assert json.loads(capsys.readouterr().out) == {"a": 1}
        assert await node.vendo("write", "/goals/one", '{"a": 2}') == 0
        assert await node.vendo("call", "/note", "now") == 0
        capsys.readouterr()
        assert await node.vendo("watch", "/note", "--json") == 0
    assert json.loads(capsys.readouterr().out.splitlines()[0]) == {"id": "1", "type": "tick", "data": '{"n":1}'}
    assert [asked[:2] for asked in node.asked] == [("goals/one", '{"a": 2}'), ("note", "now")]


async def test_a_file_that_is_not_there_exits_65(tmp_path, capsys):
    async with running(tmp_path, {"note": "plain"}) as node:
        assert await node.vendo("cat", "/nothing", "--json") == ExitCode.DATA
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "fs.not_found"


async def test_a_body_can_come_from_a_file(tmp_path, capsys):
    (tmp_path / "body").write_text("from a file")
    async with running(tmp_path, {"note": "plain"}) as node:
        assert await node.vendo("call", "/note", f"@{tmp_path / 'body'}") == 0
        assert await node.vendo("call", "/note", "@/no/such/file") == ExitCode.USAGE
    assert node.asked[0][1] == "from a file"


def test_without_a_command_the_help_is_shown_and_the_exit_code_is_64(capsys):
    assert run([]) == ExitCode.USAGE
    assert run(["--help"]) == ExitCode.OK
