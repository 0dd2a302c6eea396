"""Where an agent's code comes from."""
