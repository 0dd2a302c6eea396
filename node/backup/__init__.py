"""Backups of a whole node, moving one agent, and what a node does that was restored from an old copy."""
