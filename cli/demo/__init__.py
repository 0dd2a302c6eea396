"""`vendo demo`: a whole market on this machine, shown as it happens and checked from outside."""
