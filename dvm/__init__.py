"""NIP-90 from both sides: buyer, seller, quotes, selection, settlement, discovery, and the providers that work."""
