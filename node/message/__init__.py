"""Messages of agents: NIP-17 in and out, NIP-04 answered in kind, mentions, reactions, files; admission and delivery."""
