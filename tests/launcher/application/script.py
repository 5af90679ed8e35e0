"""Exports three reports: as a script, and as `python -m script`."""

import sys

if "gevent" in sys.argv:
    from gevent import monkey

    monkey.patch_all()

from work import perform

for number in range(3):
    perform(number)
