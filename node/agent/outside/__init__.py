"""Agents that live outside of the process: their turns, and the two ways in which a trigger reaches them."""
