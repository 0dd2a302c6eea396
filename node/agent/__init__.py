"""Agents: programs that are woken by what arrives, one tick at a time, and act through files (DESIGN §4)."""
