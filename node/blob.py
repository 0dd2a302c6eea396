"""`[blobs]`: results that are too large for an event. Pure."""

from pydantic import Field, field_validator

from node.section import Section
from relays.blob import MAX_SERVERS, check_server


class BlobSection(Section):
    """Large results, sold and bought."""

    servers: tuple[str, ...] = Field((), max_length=MAX_SERVERS)
    inline_kb: int = Field(32, ge=1, le=60)
    max_mb: int = Field(16, ge=0, le=16)
    results_mb: int = Field(1_024, ge=16, le=1_048_576)
    server_s: int = Field(30, ge=1, le=600)

    @field_validator("servers")
    @classmethod
    def _check(cls, servers: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(check_server(url) for url in servers)


TEMPLATE = """\
[blobs]                        # results that are too large for an event: encrypted files on Blossom servers
servers = []                   # where yours are put, two or more of them; none: what you sell must fit an event
inline_kb = 32                 # a result up to this stands in its event, if your relays take that much
max_mb = 16                    # the largest result that is sent or fetched; 0: none is
results_mb = 1024              # so much is kept of what was bought; the oldest goes first
server_s = 30                  # how long one server has to hand over a file before the next one is asked

"""
