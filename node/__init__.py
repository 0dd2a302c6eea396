"""The running node: tick engine, gate and ledger, storage, control plane, configuration, composition root."""
