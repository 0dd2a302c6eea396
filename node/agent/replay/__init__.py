"""What is kept of a tick, and how it is run again."""
