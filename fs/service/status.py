"""/status: how the agent, or the node, is doing. One JSON file."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from fs.tree import File, Schema, Tree, json_reader


def status_service(facts: Callable[[], Awaitable[Mapping[str, Any]]], shape: Schema = None) -> Tree:
    """The service at `/status`; `facts` are looked up at each read, and have this `shape`."""
    return Tree(File("how this agent is doing, as JSON", read=json_reader(facts), gives=shape or {"type": "object"}))
