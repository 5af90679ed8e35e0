"""`python -m ts_autotrack.cli` is `ts-autotrack`."""

import sys

from ts_autotrack.cli import main

sys.exit(main())
