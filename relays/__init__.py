"""Nostr: events, kinds, codecs, keys, the relay pool and the embedded relay. Knows nothing of jobs or money."""
