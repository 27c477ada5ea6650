"""`python -m pufferjax`: the command where its script is not on the path."""

import sys

from pufferjax.cli import main

sys.exit(main())
