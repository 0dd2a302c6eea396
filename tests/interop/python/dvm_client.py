"""nostr-dvm's bot, which buys at machines for whoever writes to it, and somebody who writes to it.

dvm_client.py --relay URL --seller PUBKEY --kind KIND --text TEXT [--lnbits URL --sat BALANCE]. The last line that it
prints is JSON: what the bot answered, in the order in which it came, until an answer holds the text. Its working
directory is its own.
"""

import argparse
import asyncio
import json
import logging
import os
import sys
import threading

from nostr_dvm.bot import Bot
from nostr_dvm.utils.admin_utils import AdminConfig
from nostr_dvm.utils.dvmconfig import DVMConfig
from nostr_dvm.utils.external_dvm_utils import build_external_dvm
from nostr_dvm.utils.sdk_utils import ensure_sdk_callback_loop
from nostr_sdk import (
    ClientBuilder,
    EventBuilder,
    Filter,
    Keys,
    Kind,
    RelayUrl,
    ReqTarget,
    SignerAuthenticator,
    Tag,
    nip04_decrypt,
    nip04_encrypt,
)

parser = argparse.ArgumentParser()
parser.add_argument("--relay", required=True)
parser.add_argument("--seller", required=True)
parser.add_argument("--kind", type=int, required=True)
parser.add_argument("--text", required=True)
parser.add_argument("--lnbits", default="")
parser.add_argument("--sat", type=int, default=0, help="what the bot has in its books for who writes")
given = parser.parse_args()
logging.basicConfig(level=logging.WARNING)
ensure_sdk_callback_loop()

config = DVMConfig()
keys, person = Keys.generate(), Keys.generate()
config.PRIVATE_KEY = keys.secret_key().to_hex()
config.RELAY_LIST = config.ANNOUNCE_RELAY_LIST = config.SYNC_DB_RELAY_LIST = [given.relay]
config.LNBITS_URL, config.LNBITS_ADMIN_KEY = given.lnbits, "admin key" if given.lnbits else ""
config.NEW_USER_BALANCE = given.sat
machine = build_external_dvm(given.seller, "echo", Kind(given.kind), 0, 0, config)
config.SUPPORTED_DVMS = [machine]
threading.Thread(target=Bot, args=[config, AdminConfig()], daemon=True).start()


async def talk() -> list[str]:
    """Ask for the balance until the bot answers, since it hears only what comes while it listens; then for work."""
    client = ClientBuilder().authenticator(SignerAuthenticator(person)).build()
    await client.add_relay(RelayUrl.parse(given.relay))
    await client.connect()
    bot = keys.public_key()
    letters = Filter().kind(Kind(4)).author(bot).pubkey(person.public_key())
    said: dict[str, str] = {}

    async def write(text: str) -> None:
        word = nip04_encrypt(person.secret_key(), bot, text)
        tags = [Tag.parse(["p", bot.to_hex()])]
        await client.send_event(EventBuilder(Kind(4), word).tags(tags).finalize(person))

    async def hear(pause: float = 0.3) -> None:
        await asyncio.sleep(pause)
        for one in await client.fetch_events(ReqTarget.auto([letters]), None):
            said[one.id().to_hex()] = nip04_decrypt(person.secret_key(), bot, one.content())

    while not said:
        await write("balance")
        await hear(5.0)  # it takes two seconds for an answer, and one letter after the other
    await write(f"1 {given.text}")
    while not any(given.text in one for one in said.values()):
        await hear()
    return list(said.values())


answers = asyncio.run(talk())
sys.stdout.write(json.dumps({"client": keys.public_key().to_hex(), "name": machine.NAME, "answers": answers}) + "\n")
sys.stdout.flush()
os._exit(0)  # the bot never ends
