"""An answer that is secret as a whole: a file service says so by its type, and nothing that records may keep it."""


class Secret(bytes):
    """The content of a file that is a secret. It is handed to the caller as it is, and shown to nobody else."""

    def __repr__(self) -> str:
        return "<secret>"
