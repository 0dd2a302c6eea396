"""Who a node and its agents are: keys at rest, what unlocks them, whose they are, and how one follows another."""
