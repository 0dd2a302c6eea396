"""[node] network: which Lightning invoices a node gives out and pays."""

import pytest

from node.config import parse, render
from node.error import ConfigInvalid
from relays.key import Key

TEXT = render(owner=Key.generate().npub, relays=("ws://127.0.0.1:1",), mints=(), port=0)
LINE = 'network = "bitcoin"'


def test_a_new_node_is_on_the_main_network_and_on_no_other():
    assert parse(TEXT).node.currencies == {"bc"}
    assert parse(TEXT.replace(LINE, "")).node.currencies == {"bc"}


@pytest.mark.parametrize(("network", "prefix"), [("testnet", "tb"), ("signet", "tbs"), ("regtest", "bcrt")])
def test_a_node_on_a_test_network_counts_no_real_invoice(network, prefix):
    assert parse(TEXT.replace(LINE, f'network = "{network}"')).node.currencies == {prefix}


def test_an_unknown_network_is_refused():
    with pytest.raises(ConfigInvalid, match="network"):
        parse(TEXT.replace(LINE, 'network = "mainnet"'))
