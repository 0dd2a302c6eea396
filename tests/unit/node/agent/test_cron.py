from datetime import UTC, datetime

import pytest

from core.error import InvalidInput
from node.agent.wake.cron import LAST_MS, read_cron


def ms(text: str) -> int:
    """An ISO time as Unix ms; UTC unless it says otherwise."""
    at = datetime.fromisoformat(text)
    return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)


def times(rule: str, after: str, count: int) -> list[str]:
    cron = read_cron(rule)
    found: list[str] = []
    at: int | None = ms(after)
    for _ in range(count):
        assert at is not None
        at = cron.after(at)
        found.append("never" if at is None else datetime.fromtimestamp(at / 1000, UTC).strftime("%Y-%m-%dT%H:%M"))
    return found


@pytest.mark.parametrize(
    ("rule", "after", "expected"),
    [
        ("* * * * *", "2026-01-31T23:59:30", ["2026-02-01T00:00", "2026-02-01T00:01"]),
        ("*/15 9-10 * * *", "2026-01-01T09:40", ["2026-01-01T09:45", "2026-01-01T10:00"]),
        ("0 0 1,15 * *", "2026-01-01T00:00", ["2026-01-15T00:00", "2026-02-01T00:00"]),
        ("30 6 * * MON-FRI", "2026-01-02T07:00", ["2026-01-05T06:30", "2026-01-06T06:30"]),
        ("30 6 * * mon-fri", "2026-01-02T07:00", ["2026-01-05T06:30", "2026-01-06T06:30"]),
        ("0 12 * jan,JUL sun", "2026-01-26T00:00", ["2026-07-05T12:00", "2026-07-12T12:00"]),
        ("0 0 * * 7", "2026-01-01T00:00", ["2026-01-04T00:00", "2026-01-11T00:00"]),
        ("0 0 13 * FRI", "2026-02-10T00:00", ["2026-02-13T00:00", "2026-02-20T00:00"]),  # either of the two
        ("0 0 29 2 *", "2026-01-01T00:00", ["2028-02-29T00:00", "2032-02-29T00:00"]),
        ("0 0 L * *", "2026-02-01T00:00", ["2026-02-28T00:00", "2026-03-31T00:00"]),
        ("5-5/2,20 3 * * *", "2026-01-01T00:00", ["2026-01-01T03:05", "2026-01-01T03:20", "2026-01-02T03:05"]),
        ("0 0 * * SUN-0/3", "2026-01-01T00:00", ["2026-01-04T00:00", "2026-01-11T00:00"]),
        ("@hourly", "2026-01-01T00:00", ["2026-01-01T01:00", "2026-01-01T02:00"]),
        ("@daily", "2026-01-01T00:00", ["2026-01-02T00:00", "2026-01-03T00:00"]),
        ("@weekly", "2026-01-01T00:00", ["2026-01-04T00:00", "2026-01-11T00:00"]),
        ("@monthly", "2026-01-01T00:00", ["2026-02-01T00:00", "2026-03-01T00:00"]),
        ("@Yearly", "2026-01-01T00:00", ["2027-01-01T00:00", "2028-01-01T00:00"]),
        ("CRON_TZ=Asia/Kolkata 0 9 * * *", "2026-01-01T00:00", ["2026-01-01T03:30", "2026-01-02T03:30"]),
    ],
)
def test_a_rule_names_the_times_that_it_names_in_debian(rule: str, after: str, expected: list[str]) -> None:
    assert times(rule, after, len(expected)) == expected


@pytest.mark.parametrize(
    "rule",
    [
        "", " ", "* * * *", "* * * * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * 32 * *", "* * * 13 *",
        "* * * * 8", "*/0 * * * *", "5-1 * * * *", "a * * * *", "1, * * * *", "* * * * MOO", "0 0 31 2 *",
        "0 0 30 FEB *", "@reboot", "@often", "CRON_TZ=Mars/Olympus * * * * *", "CRON_TZ=../../etc/passwd * * * * *",
        "CRON_TZ=/etc/passwd * * * * *", "CRON_TZ=Europe * * * * *", "CRON_TZ= * * * * *", "CRON_TZ=UTC",
        "* * * * * ; rm -rf /", "1;2 * * * *", "$(id) * * * *", "9" * 150 + " * * * *", "* " * 200, "² * * * *",
        "1\x00 * * * *",
    ],
)  # fmt: skip
def test_what_is_no_rule_is_refused_with_a_reason(rule: str) -> None:
    with pytest.raises(InvalidInput):
        read_cron(rule)


def test_a_time_that_does_not_exist_comes_at_the_first_minute_that_does() -> None:
    # on 29 March 2026 02:00 is followed by 03:00 in Zurich, which is 01:00 UTC
    assert times("CRON_TZ=Europe/Zurich 30 2 * * *", "2026-03-28T12:00", 2) == ["2026-03-29T01:00", "2026-03-30T00:30"]
    both = times("CRON_TZ=Europe/Zurich 0,30 2 * * *", "2026-03-28T12:00", 2)
    assert both == ["2026-03-29T01:00", "2026-03-30T00:00"], "two times that fall together are one"


def test_a_time_that_comes_twice_counts_the_first_time_only() -> None:
    # on 25 October 2026 03:00 is followed by 02:00 again: 02:30 is 00:30 and 01:30 UTC
    found = times("CRON_TZ=Europe/Zurich 30 2 * * *", "2026-10-24T12:00", 2)
    assert found == ["2026-10-25T00:30", "2026-10-26T01:30"]
    in_the_second_hour = times("CRON_TZ=Europe/Zurich 30 2 * * *", "2026-10-25T01:10", 1)
    assert in_the_second_hour == ["2026-10-26T01:30"], "a time that has passed is not named again"


def test_a_rule_with_a_star_in_its_hours_goes_by_time_as_it_passes() -> None:
    spring = times("CRON_TZ=Europe/Zurich 30 * * * *", "2026-03-29T00:00", 3)
    assert spring == ["2026-03-29T00:30", "2026-03-29T01:30", "2026-03-29T02:30"], "each hour that there is"
    autumn = times("CRON_TZ=Europe/Zurich 30 * * * *", "2026-10-25T00:00", 3)
    assert autumn == ["2026-10-25T00:30", "2026-10-25T01:30", "2026-10-25T02:30"], "both hours of one name"


def test_times_only_rise_and_end_with_the_century() -> None:
    rule = read_cron("0 0 1 1 *")
    assert rule.after(LAST_MS - 1) is None
    assert rule.after(LAST_MS) is None
    assert rule.after(-1) is None
    assert rule.after(ms("2098-06-01T00:00")) == ms("2099-01-01T00:00")


def test_times_between_are_counted_up_to_a_bound() -> None:
    rule = read_cron("@hourly")
    assert rule.between(ms("2026-01-01T00:00"), ms("2026-01-02T00:00"), 1_000) == 24
    assert rule.between(ms("2026-01-01T00:00"), ms("2027-01-01T00:00"), 1_000) == 1_000
    assert rule.between(ms("2026-01-01T00:00"), ms("2026-01-01T00:59"), 1_000) == 0


def test_a_rule_is_read_again_from_what_it_says() -> None:
    for text in ("30 6 * * mon-fri", "@daily", "CRON_TZ=Europe/Zurich 0 9 * * *"):
        assert read_cron(str(read_cron(text))) == read_cron(text)
    assert str(read_cron("CRON_TZ=UTC  0   9 * * *")) == "0 9 * * *"


def test_the_next_times_are_found_from_within_a_second() -> None:
    assert read_cron("* * * * *").after(ms("2026-01-01T00:00") + 999) == ms("2026-01-01T00:01")
    assert read_cron("* * * * *").after(ms("2026-01-01T00:00") - 1) == ms("2026-01-01T00:00")


def test_every_alias_is_five_fields() -> None:
    for name in ("@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"):
        assert len(read_cron(name).fields.split()) == 5
