"""One tick after another: whose turn it is, what a tick is made of, its one commit, and what follows if it fails."""
