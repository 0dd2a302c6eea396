"""What the sections of `config.toml` have in common. Pure."""

from decimal import Decimal, InvalidOperation
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict

from core.money import MICRO


def _usd(value: Any) -> int:
    """Dollars as decimal text, in whole µUSD."""
    if not isinstance(value, str):
        raise ValueError('write dollars as text, for example "0.10"')
    try:
        micro = Decimal(value) * MICRO
    except InvalidOperation as error:
        raise ValueError(f"{value!r} is not an amount of dollars") from error
    if not micro.is_finite() or micro < 0 or micro != micro.to_integral_value() or micro > 10**15:
        raise ValueError(f"{value!r} is not an amount of dollars from 0 with at most six decimals")
    return int(micro)


Usd = Annotated[int, BeforeValidator(_usd)]


class Section(BaseModel):
    """A table of settings: unknown names are refused, and nothing changes after the start."""

    model_config = ConfigDict(extra="forbid", frozen=True)
