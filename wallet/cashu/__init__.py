"""Cashu with its library fenced: crypto from `cashu`, everything that touches files, settings or the network ours."""
