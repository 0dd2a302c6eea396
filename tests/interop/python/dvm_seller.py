"""A machine made with nostr-dvm's framework, as its authors show it: it gives back its input, for a price in sat.

dvm_seller.py --relay URL --kind KIND --sat PRICE [--lnbits URL]. Its working
directory is its own. It ends when it is killed.
"""

import argparse
import json
import logging
import sys

from nostr_dvm.framework import DVMFramework
from nostr_dvm.tasks.generic_dvm import GenericDVM
from nostr_dvm.utils.admin_utils import AdminConfig
from nostr_dvm.utils.dvmconfig import DVMConfig
from nostr_dvm.utils.nip89_utils import NIP89Config
from nostr_sdk import Keys, Kind, LogLevel

parser = argparse.ArgumentParser()
parser.add_argument("--relay", required=True)
parser.add_argument("--kind", type=int, required=True)
parser.add_argument("--sat", type=int, required=True)
parser.add_argument("--lnbits", default="")
given = parser.parse_args()
logging.basicConfig(level=logging.WARNING)

config = DVMConfig()
config.PRIVATE_KEY = Keys.generate().secret_key().to_hex()
config.KIND = Kind(given.kind)
config.FIX_COST, config.PER_UNIT_COST = given.sat, 0
config.RELAY_LIST = config.ANNOUNCE_RELAY_LIST = config.SYNC_DB_RELAY_LIST = [given.relay]
config.LNBITS_URL, config.LNBITS_INVOICE_KEY = given.lnbits, "invoice key" if given.lnbits else ""
config.LOGLEVEL = LogLevel.DEBUG
admin = AdminConfig()
admin.REBROADCAST_NIP89 = admin.REBROADCAST_NIP65_RELAY_LIST = True
about = NIP89Config()
about.DTAG = "echo"
about.KIND = Kind(given.kind)
about.CONTENT = json.dumps({"name": "Echo", "about": "Gives back what it gets.", "supportsEncryption": True,
                            "nip90Params": {}, "amount": str(given.sat) if given.sat else "free"})  # fmt: skip


class Echo(GenericDVM):
    """Its input is its result."""

    FIX_COST = given.sat

    async def process(self, request_form):
        return self.set_options(request_form)["input"]


machine = Echo(name="Echo", dvm_config=config, nip89config=about, admin_config=admin)
sys.stdout.write(json.dumps({"pubkey": config.PUBLIC_KEY}) + "\n")
sys.stdout.flush()
framework = DVMFramework()
framework.add(machine)
framework.run()
