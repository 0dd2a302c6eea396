"""`python -m bench` runs the market's bench."""

import sys

from bench.market import main

if __name__ == "__main__":
    sys.exit(main())
