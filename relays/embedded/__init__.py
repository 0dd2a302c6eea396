"""The embedded relay: Nostr events kept in a file of their own and served to whoever connects (DESIGN §3)."""
