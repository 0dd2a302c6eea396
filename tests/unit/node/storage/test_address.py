"""Where a database is, and that nobody is shown its password."""

from pathlib import Path

import pytest

from core.error import InvalidInput
from node.storage.address import (
    check_database,
    file_of,
    has_password,
    is_postgres,
    shown,
    with_password,
    without_password,
)

SECRET = "p@ss:w/rd%?#&"


def test_a_url_of_postgresql_is_told_from_a_file():
    assert is_postgres("postgresql://h/d")
    assert is_postgres("postgres://h/d")
    assert not is_postgres("sqlite:///node.db")
    assert not is_postgres(Path("postgresql:/h/d"))


@pytest.mark.parametrize(
    "url", ["postgresql://h/d", "postgresql://u@[::1]:5432/d?sslmode=require", "postgresql://u@/d?host=/run/postgresql"]
)
def test_a_password_goes_into_a_url_and_is_not_shown(url):
    secret = with_password(url, SECRET)
    assert has_password(secret)
    assert not has_password(url)
    assert shown(url) == url
    assert "p%40ss" not in shown(secret)
    assert SECRET not in shown(secret)
    assert with_password(secret, SECRET) != url


def test_a_password_among_the_options_is_one_as_well():
    url = "postgresql://u@h/d?password=secret&sslmode=require"
    assert has_password(url)
    assert shown(url) == "postgresql://u@h/d?sslmode=require"


def test_what_a_driver_says_is_freed_of_the_password():
    url = with_password("postgresql://u@h/d", SECRET)
    said = without_password(f"no login with {SECRET} or\n p%40ss%3Aw%2Frd%25%3F%23%26.", url)
    assert said == "no login with … or …"


def test_a_file_without_a_folder_is_in_the_home():
    assert file_of("sqlite:///node.db", Path("/home/me")) == Path("/home/me/node.db")
    assert file_of("sqlite:////var/x.db", Path("/home/me")) == Path("/var/x.db")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "node.db",
        "mysql://h/d",
        "sqlite:///",
        "sqlite:///:memory:",
        "postgresql://h",
        "postgresql://h:x/d",
        "sqlite://x",
    ],
)
def test_what_is_no_database_is_refused_without_being_repeated(url):
    with pytest.raises(InvalidInput) as caught:
        check_database(url)
    assert not url or f" {url} " not in f" {caught.value.message} "
