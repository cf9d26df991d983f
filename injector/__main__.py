"""`python -m injector`."""

import sys

from injector.cli import main

if __name__ == "__main__":
    sys.exit(main())
