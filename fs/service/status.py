"""/status: how the agent, or the node, is doing. One JSON file."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from fs.tree import File, Tree, json_reader


def status_service(facts: Callable[[], Awaitable[Mapping[str, Any]]]) -> Tree:
    """The service at `/status`; `facts` are looked up at each read."""
    return Tree(File("how this agent is doing, as JSON", read=json_reader(facts)))
