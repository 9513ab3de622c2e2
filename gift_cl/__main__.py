"""`python -m gift_cl`, the same as `gift-cl`."""

import sys

from gift_cl.cli import main

if __name__ == "__main__":
    sys.exit(main())
