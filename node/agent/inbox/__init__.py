"""What waits for an agent: what may come in, in which order it goes out, and what becomes of the rest."""
