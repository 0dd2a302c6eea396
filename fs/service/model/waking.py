"""What alarms, interests and hooks have in common. Pure."""

from typing import Literal

from fs.body import Fact

ID = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"
"""What the node takes as the id of an alarm or of an interest; it is the node that checks it."""


class Deleted(Fact):
    """What was taken away."""

    id: str
    status: Literal["deleted"]
