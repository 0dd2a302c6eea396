"""A changed copy of an immutable value, many times as fast as `dataclasses.replace`. Pure.

The state machines make several copies for each event, and `replace` walks through every field each time. A frozen
dataclass without slots is copied here by its whole `__dict__` at once; one with slots as ever. A class without slots
that is copied here must check nothing when it is made (no `__post_init__`): what was valid stays as it is, and mypy
checks the types of what changes.
"""

import dataclasses
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from dataclasses import replace as replace  # mypy knows the fields of each class through this name alone
else:
    T = TypeVar("T")

    def replace(value: T, /, **changes: Any) -> T:
        """The same value with these fields changed.

        Raises:
            TypeError: there is no such field.
        """
        if not hasattr(value, "__dict__"):
            return dataclasses.replace(value, **changes)
        fields = value.__dict__
        if not changes.keys() <= fields.keys():
            unknown = ", ".join(sorted(changes.keys() - fields.keys()))
            raise TypeError(f"{type(value).__name__} has no field {unknown}")
        copy = object.__new__(type(value))
        own = copy.__dict__
        own.update(fields)
        own.update(changes)
        return copy
