"""The fast tier of the simulation: the product's pure machines, joined to model mints, without asyncio and crypto.

What is real: `dvm.buyer`, `dvm.seller`, `wallet.payment`, `dvm.selection`, `dvm.settlement`, `dvm.invoice`,
`dvm.admission`, `node.gate.compile`, `wallet.verification`, `wallet.melt`, `wallet.cashu.lock`,
`wallet.planner.lock_cost`, and `dvm.record` whenever a node is read again.
What is a model: the wire, the mints, Lightning, seals, and the thin drivers, which persist a value, remember what is to
be sent, and act. The whole drivers are simulated by the slow tier, `tests/simulation`.
"""
