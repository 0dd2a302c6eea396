import pytest
from multidict import CIMultiDict

from relays.embedded.access import Access
from relays.embedded.door import Door

PROXY = Door(Access(proxies=("127.0.0.0/8", "10.0.0.0/8")))


@pytest.mark.parametrize(
    ("peer", "header", "client"),
    [
        ("198.51.100.1", "203.0.113.9", "198.51.100.1"),
        ("127.0.0.1", "203.0.113.9", "203.0.113.9"),
        ("127.0.0.1", "8.8.8.8, 203.0.113.9, 10.1.1.1", "203.0.113.9"),
        ("127.0.0.1", "203.0.113.9, junk", "127.0.0.1"),
        ("127.0.0.1", "203.0.113.9, 198.51.100.7:4711", "198.51.100.7"),
        ("127.0.0.1", "203.0.113.9, [2001:db8::7]:4711", "2001:db8::7"),
        ("127.0.0.1", "10.1.1.1", "127.0.0.1"),
        ("127.0.0.1", "", "127.0.0.1"),
        ("127.0.0.1", "2001:db8::1", "2001:db8::1"),
    ],
)
def test_only_our_own_proxies_say_who_the_client_is(peer, header, client):
    assert PROXY.address(peer, CIMultiDict({"X-Forwarded-For": header})) == client


def test_a_proxy_that_adds_a_header_of_its_own_is_heard_and_the_clients_is_not():
    headers = CIMultiDict([("X-Forwarded-For", "203.0.113.9"), ("X-Forwarded-For", "198.51.100.1")])
    assert PROXY.address("127.0.0.1", headers) == "198.51.100.1"


def test_waiting_sockets_are_bounded_for_one_address_and_in_all():
    door = Door(Access())
    assert [door.enter("198.51.100.1") for _ in range(65)] == [True] * 64 + [False]
    assert door.enter("198.51.100.2")
    door.leave("198.51.100.1")
    assert door.enter("198.51.100.1")
    for number in range(1_000):
        door.enter(f"203.0.{number // 250}.{number % 250}")
    assert door.waiting == 512
    assert all(Door(Access(), ("10.0.0.0/8",)).enter("10.1.1.1") for _ in range(300))
    behind = Door(Access(proxies=("127.0.0.0/8",)))
    assert all(behind.enter("127.0.0.1") for _ in range(300)), "one proxy stands for many clients"


def test_an_allowed_network_keeps_all_others_out():
    door = Door(Access(addresses=("10.0.0.0/8",), denied_addresses=("10.6.0.0/16",)))
    assert [door.refuse(one) for one in ("10.1.1.1", "10.6.1.1", "203.0.113.1", "::1", "?")] == [
        False,
        True,
        True,
        True,
        True,
    ]
