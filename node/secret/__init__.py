"""Secrets that are set and never read back: kept sealed, named where they are used, opened at that moment."""
