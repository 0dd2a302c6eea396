"""The columns that tables are made of."""

from sqlalchemy import BigInteger, Column, Index, Integer, MetaData, String, text
from sqlmodel import SQLModel

METADATA = MetaData()


class Table(SQLModel):
    """One row of any of our tables."""

    metadata = METADATA


def big(default: int | None = None) -> Column[int]:
    """A whole number of 64 bits."""
    return Column(BigInteger, nullable=False, server_default=None if default is None else str(default))


def word(default: str | None = None) -> Column[str]:
    """One of a few words, `[a-z_]`. It stands in SQL as it is, so that indexes over some of the rows are found."""
    return Column(String, nullable=False, server_default=default, info={"literal": True})


def some(name: str, *columns: str, where: str) -> Index:
    """An index over some of the rows."""
    return Index(name, *columns, sqlite_where=text(where), postgresql_where=text(where))


def numbered() -> Column[int]:
    """A key that counts up by itself; SQLite does that only for the exact type INTEGER."""
    return Column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True)
