"""Runs the command `ts-autotrack` as `python -m ts_autotrack.cli`."""

import sys

from ts_autotrack.cli import main

sys.exit(main())
