"""The control plane: the files of every agent over HTTP, on loopback, for whoever has a token (DESIGN §7, §8)."""
