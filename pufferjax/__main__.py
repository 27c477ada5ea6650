"""`python -m pufferjax`: the `pufferjax` command."""

import sys

from pufferjax.cli import main

if __name__ == "__main__":  # a tool that imports every module starts nothing
    sys.exit(main())
