"""What the schema says about the tables."""

import pytest

from node.storage.error import BadWrite
from node.storage.schema import facts
from node.storage.table import METADATA


@pytest.mark.parametrize("name", sorted(METADATA.tables))
def test_every_table_is_known_with_columns_defaults_and_a_key(name: str) -> None:
    about = facts(name)
    assert set(about.kinds) == {column.name for column in METADATA.tables[name].columns}
    assert about.required | about.defaults.keys() | {about.counter} - {None} == about.kinds.keys()
    assert about.unique[0] == tuple(column.name for column in METADATA.tables[name].primary_key.columns)
    for column, value in about.defaults.items():
        about.check(column, value)


def test_an_unknown_table_is_our_own_fault() -> None:
    with pytest.raises(BadWrite):
        facts("sqlite_master")


def test_keys_and_counters_are_read_from_the_models() -> None:
    assert set(facts("entry").unique) == {("n",), ("run", "seq"), ("id",)}
    assert facts("entry").counter == "n"
    assert facts("hold").unique == (("effect_id", "budget"),)
    assert facts("hold").counter is None
    assert {"agent", "n"} <= facts("log").indexed
