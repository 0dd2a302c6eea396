import contextlib
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fs.error import BadPath
from fs.path import MAX_NAME, MAX_PATH, clean, decode, join, parts

HOSTILE = [
    "",
    "a",
    "a/b",
    "//",
    "/a//b",
    "/a/",
    "/.",
    "/..",
    "/a/../b",
    "/a/./b",
    "/a\\b",
    "/%2e%2e",
    "/a%",
    "/a\0b",
    "/a\nb",
    "/a\x7fb",
    "/a\u202eb",
    "/a\u200bb",
    "/a\u2028b",
    "/\ud800",
    "/ a",
    "/a ",
    "/a/\u00a0",
    "/cafe\u0301",
    "/" + "a" * (MAX_NAME + 1),
    "/a" * MAX_PATH,
]

HOSTILE_URLS = [
    "/a%2Fb",
    "/a%2fb",
    "/%2e%2e/etc",
    "/%2E",
    "/a%00",
    "/a%0a",
    "/a%5cb",
    "/a%25b",
    "/a%252e%252e",
    "/a%",
    "/a%zz",
    "/a%2",
    "/a%u0041",
    "/caf\u00e9",
    "/a%ff",
    "/a%c0%ae",
    "/a%ed%a0%80",
    "/a//b",
    "/a//",
    "/a b",
    "/a#b",
    "/a\\b",
    "/a;\x01",
    "http://elsewhere/a",
    "/" + "%41" * (MAX_PATH + 1),
]


@pytest.mark.parametrize("path", HOSTILE)
def test_a_path_that_is_not_plain_is_refused(path: str) -> None:
    with pytest.raises(BadPath):
        parts(path)


@pytest.mark.parametrize("raw", HOSTILE_URLS)
def test_a_url_that_hides_something_is_refused(raw: str) -> None:
    with pytest.raises(BadPath):
        decode(raw)


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        ("/", "/"),
        ("/a", "/a"),
        ("/a/", "/a"),
        ("/a/b-c_d.e~f", "/a/b-c_d.e~f"),
        ("/caf%C3%A9", "/café"),
        ("/a%20b", "/a b"),
        ("/%41", "/A"),
        ("/...", "/..."),
    ],
)
def test_a_url_is_decoded_once(raw: str, path: str) -> None:
    assert decode(raw) == path


@given(st.text(max_size=60))
def test_what_passes_is_its_own_canonical_form(text: str) -> None:
    try:
        names = parts("/" + text)
    except BadPath:
        return
    assert join(names) == clean("/" + text)
    assert parts(join(names)) == names
    assert not {"", ".", ".."} & set(names)
    assert not any("/" in name or "%" in name or "\0" in name for name in names)


@given(st.text(max_size=60))
def test_every_good_path_comes_back_from_its_url(text: str) -> None:
    try:
        path = clean("/" + text)
    except BadPath:
        return
    assert decode(quote(path)) == path


@given(st.text(alphabet="/.%2eEfF5cC0aA\\ ab", max_size=40))
def test_no_url_climbs_out_however_it_is_written(raw: str) -> None:
    try:
        path = decode("/" + raw)
    except BadPath:
        return
    assert path.startswith("/")
    assert ".." not in path.split("/")
    assert "%" not in path
    assert "\\" not in path


@given(st.binary(max_size=60))
def test_no_bytes_make_it_fail_otherwise(raw: bytes) -> None:
    with contextlib.suppress(BadPath):
        decode("/" + raw.decode("latin-1"))
