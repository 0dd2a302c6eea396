import pytest

from core.error import InvalidInput
from dvm.provider.echo import Echo
from dvm.request import ComputeRequest, Datum


async def test_echo_gives_the_prompt_back() -> None:
    assert (await Echo().run(ComputeRequest(5050, (Datum("hello"),)))).content == "hello"


def test_echo_fetches_nothing() -> None:
    with pytest.raises(InvalidInput):
        Echo().check(ComputeRequest(5050, (Datum("http://x", "url"),)))
