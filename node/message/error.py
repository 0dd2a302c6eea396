"""What can go wrong with messages of agents.

VendoError
├── NotReady          message.not_ready   503  nobody knows where this person reads messages
├── NoFileServer      message.no_server   409  there is nowhere to put a file
├── FileRefused       message.file        400  a file is too large, not there, or not what was announced
└── FileUnreachable   message.unreachable 503  its server did not answer
"""

from core.error import InvalidInput, Unavailable


class NotReady(Unavailable):
    """Nobody knows where this person reads private messages (NIP-17: there is no kind-10050 list)."""

    code = "message.not_ready"
    remedy = (
        "Ask them to publish a list of relays for messages, or to write first; or add them to the agent's contacts."
    )


class NoFileServer(Unavailable):
    """This node has no server for files."""

    code = "message.no_server"
    status = 409  # trying again does not help
    remedy = "Name a Blossom server in the configuration: [messages] blossom."


class FileRefused(InvalidInput):
    """The file is too large, empty, or not what was announced."""

    code = "message.file"


class FileUnreachable(Unavailable):
    """The file's server did not answer as it should."""

    code = "message.unreachable"
