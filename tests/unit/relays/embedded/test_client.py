"""What one connection may make the relay hold for it."""

import asyncio

import pytest

from relays.embedded.client import Client, Outbox, Subscription
from relays.embedded.limit import Limits


class Pipe(asyncio.Transport):
    """A socket that takes everything."""

    def __init__(self):
        super().__init__()
        self.written = b""
        self.closed = False

    def write(self, data):
        self.written += data

    def get_write_buffer_size(self):
        return 0

    def is_closing(self):
        return self.closed

    def close(self):
        self.closed = True

    def abort(self):
        self.closed = True


@pytest.fixture
async def client():
    made = Client(Pipe(), None, Outbox(), Limits(send_bytes=1_000), None, lambda: None)
    yield made
    made.leave()


async def test_what_all_subscriptions_of_a_client_hold_together_is_bounded(client):
    subscriptions = [Subscription(client, str(number)) for number in range(4)]
    for subscription in subscriptions[:2]:
        subscription.deliver(1, b"x" * 400)
    assert not client.gone
    subscriptions[2].deliver(1, b"x" * 400)
    assert client.gone
    assert b"too slowly" in client._transport.written


async def test_what_was_sent_or_dropped_is_held_no_longer(client):
    for number in range(50):
        one, other = Subscription(client, f"a{number}"), Subscription(client, f"b{number}")
        one.deliver(1, b"x" * 400)
        other.deliver(1, b"x" * 400)
        one.drop()
        one.drop()
        other.ended_stored(0)
        other.drop()
        client.flush()
    assert not client.gone
