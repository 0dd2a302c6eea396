"""monstr's relay as a process of its own, in memory: monstr_relay.py --port P, in the environment of relays.txt."""

import argparse
import asyncio

from monstr.event.persist_memory import RelayMemoryEventStore
from monstr.relay.relay import Relay

parser = argparse.ArgumentParser()
parser.add_argument("--port", type=int, required=True)
given = parser.parse_args()
asyncio.run(Relay(RelayMemoryEventStore(), max_sub=2000).start(host="127.0.0.1", port=given.port))
