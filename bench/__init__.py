"""Measurements, as ratios to floors that are measured in the same run. `python -m bench.market` is the market's."""
