"""Real Lightning on this machine: Electrum's nodes on a small chain, and a nutshell mint that pays and is paid by one.

    async with network(folder) as net:
        async with net.mint() as mint:
            paid = await net.payer.pay(invoice)

What it proves and what it does not: docs/explanation/lightning-tests.md. `make test-deps` brings Electrum.
"""
