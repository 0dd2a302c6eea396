import pytest

from relays.embedded.rate import Bucket, Gauge, Meter, Rate, Rates, network

ME, YOU = "198.51.100.1", "203.0.113.9"


def test_a_bucket_refills_with_every_fraction_of_a_second():
    """A client at half of the rate that never rests is never refused, for however long."""
    bucket = Bucket(Rate(per_minute=60, burst=10), 0.0)
    assert all(bucket.take(number * 2.0 / 50, 1 / 50) for number in range(50_000))


def test_a_bucket_allows_its_burst_and_then_its_rate():
    bucket = Bucket(Rate(per_minute=60, burst=10), 0.0)
    assert [bucket.take(0.0) for _ in range(11)] == [True] * 10 + [False]
    taken = sum(bucket.take(at / 10) for at in range(1, 1_001))
    assert taken == 100


def test_time_that_runs_backwards_gives_nothing():
    bucket = Bucket(Rate(per_minute=60, burst=1), 100.0)
    assert bucket.take(100.0)
    assert not bucket.take(50.0)
    assert not bucket.take(50.5)
    assert bucket.take(51.0)


def test_who_borrows_waits_until_the_debt_is_paid():
    bucket = Bucket(Rate(per_minute=600, burst=100), 0.0)
    assert bucket.borrow(0.0, 100) == 0
    assert bucket.borrow(0.0, 50) == pytest.approx(5.0)
    assert bucket.borrow(4.0, 0) == pytest.approx(1.0)


def meter(address=ME, **rates):
    gauge = Gauge(Rates(exempt=(), **rates))
    return Meter(gauge, address), gauge


def test_events_are_counted_for_the_address_and_for_the_author():
    one, gauge = meter(events=Rate(60, 5), events_per_key=Rate(60, 3))
    for _ in range(3):
        assert one.event("alice", 0.0) == ""
        one.wrote("alice", 0.0)
    assert "by this key" in one.event("alice", 0.0)
    assert one.event("bob", 0.0) == ""
    assert "from your address" in one.event("carol", 0.0)
    other = Meter(gauge, YOU)
    assert "by this key" in other.event("alice", 0.0)
    assert other.event("dan", 0.0) == ""


def test_requests_auths_and_bytes_have_buckets_of_their_own():
    one, _ = meter(requests=Rate(60, 1), auths=Rate(60, 2), bytes=Rate(600, 10))
    assert (one.request(0.0), one.auth(0.0), one.auth(0.0)) == ("", "", "")
    assert one.request(0.0).startswith("rate-limited:")
    assert one.auth(0.0).startswith("rate-limited:")
    assert one.read(10, 0.0) == 0
    assert one.read(10, 0.0) == pytest.approx(1.0)


def test_a_rate_of_zero_is_no_limit():
    one, _ = meter(events=Rate(), events_per_key=Rate(), requests=Rate(), auths=Rate(), bytes=Rate())
    assert all(one.event("a", 0.0) == one.request(0.0) == one.auth(0.0) == "" for _ in range(5_000))
    assert one.read(1 << 40, 0.0) == 0


def test_exempt_networks_are_not_counted():
    gauge = Gauge(Rates(events=Rate(1, 1), requests=Rate(1, 1), exempt=("198.51.100.0/24",), connections=1))
    free = Meter(gauge, ME)
    assert all(free.event("a", 0.0) == free.request(0.0) == "" for _ in range(50))
    assert all(gauge.enter(ME, 0.0) == "" for _ in range(50))
    assert len(gauge) == 0


def test_open_and_new_connections_of_an_address_are_bounded():
    _, gauge = meter(connections=2, connects=Rate(60, 4))
    assert [gauge.enter(ME, 0.0), gauge.enter(ME, 0.0)] == ["", ""]
    assert "open already" in gauge.enter(ME, 0.0)
    gauge.leave(ME)
    assert gauge.enter(ME, 0.0) == ""
    gauge.leave(ME)
    assert gauge.enter(ME, 0.0) == ""
    gauge.leave(ME)
    assert "too many new" in gauge.enter(ME, 0.0)
    assert gauge.enter(YOU, 0.0) == ""


def test_the_number_of_buckets_is_bounded():
    one, gauge = meter(events=Rate(60, 5), events_per_key=Rate(60, 5))
    for number in range(30_000):
        one.wrote(f"key {number}", 0.0)
    assert len(gauge) <= 20_000


@pytest.mark.parametrize(
    ("address", "group"),
    [
        ("198.51.100.1", "198.51.100.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9%eth0", "2001:db8:1:2::/64"),
        ("::ffff:198.51.100.1", "198.51.100.1"),
        ("what", "what"),
    ],
)
def test_ipv6_customers_are_counted_by_their_network(address, group):
    assert network(address) == group
