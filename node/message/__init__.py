"""What agents hear and say: NIP-17, NIP-04 answered in kind, mentions, reactions and files; admission, delivery."""
