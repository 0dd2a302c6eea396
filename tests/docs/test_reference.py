"""The reference pages say what the code does."""

import re
from collections import Counter
from pathlib import Path

import pytest

from scripts import reference

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", sorted(reference.pages()))
def test_a_reference_page_is_what_the_code_says(name):
    assert (ROOT / "docs" / "reference" / name).read_text() == reference.pages()[name], "run `make reference`"


def test_every_error_code_belongs_to_one_class_alone():
    counts = Counter(one.code for one in reference.error_classes())
    assert [code for code, count in counts.items() if count > 1] == []


def test_every_error_has_words_for_people():
    for one in reference.error_classes():
        assert (one.__doc__ or "").strip(), one
        assert 400 <= one.status < 600, one
        assert re.fullmatch(r"[a-z_]+(\.[a-z_]+)?", one.code), one


def test_every_setting_is_explained_in_the_file_that_init_writes():
    empty = re.findall(r"^\| `(\w+)` \| .* \|  \|$", reference.settings(), re.MULTILINE)
    assert empty == []


def test_the_pages_link_only_to_files_that_exist():
    broken = []
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
            if "://" not in target and not (page.parent / target).exists():
                broken.append(f"{page.relative_to(ROOT)}: {target}")
    assert broken == []
