"""`vendo fraud verify`: anybody checks a proof, with a file and no node."""

import json

from cli.main import run
from cli.output import ExitCode
from dvm.fraud import encode, fraud_draft
from tests.fraud_part import NOW, Swap

SWAP = Swap()


def test_a_proof_and_the_label_of_one_are_checked_without_a_node(tmp_path, capsys):
    proof = SWAP.proof(SWAP.lie())
    for text in (encode(proof), SWAP.buyer.sign(fraud_draft(proof, NOW)).to_json()):
        (tmp_path / "proof").write_text(text)
        assert run(["fraud", "verify", str(tmp_path / "proof"), "--json"]) == ExitCode.OK
        told = json.loads(capsys.readouterr().out)
        assert (told["proven"], told["seller"]) == (True, SWAP.seller.pubkey)
    assert run(["fraud", "verify", str(tmp_path / "proof")]) == ExitCode.OK
    assert capsys.readouterr().out.startswith("Proven: ")


def test_what_proves_nothing_is_an_error_that_says_why(tmp_path, capsys):
    (tmp_path / "proof").write_text(encode(SWAP.proof(SWAP.result())))
    assert run(["fraud", "verify", str(tmp_path / "proof")]) == ExitCode.DATA
    assert capsys.readouterr().out.startswith("Not proven: The key opens what the seller signed")
    for name, data in (("none", None), ("bytes", b"\xff\xfe"), ("text", b"no proof")):
        if data is not None:
            (tmp_path / name).write_bytes(data)
        assert run(["fraud", "verify", str(tmp_path / name)]) == ExitCode.USAGE
        assert "Traceback" not in capsys.readouterr().err
