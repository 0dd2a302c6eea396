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
    _new, _set = object.__new__, object.__setattr__

    def replace(value: T, /, **changes: Any) -> T:
        """The same value with these fields changed.

        Raises:
            TypeError: there is no such field.
        """
        try:
            fields = value.__dict__
        except AttributeError:
            return dataclasses.replace(value, **changes)
        changed = fields | changes
        if len(changed) != len(fields):
            unknown = ", ".join(sorted(changes.keys() - fields.keys()))
            raise TypeError(f"{type(value).__name__} has no field {unknown}")
        copy = _new(type(value))
        _set(copy, "__dict__", changed)  # past the class's own, which lets nothing be set
        return copy
