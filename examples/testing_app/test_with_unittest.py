"""The same with unittest; Django's TestCase works alike."""

from __future__ import annotations

import unittest

from app import post_export

from ts_autotrack.testing import Events, capture_events


@capture_events()
class ExportTests(unittest.TestCase):
    """A decorated class gives its events to each test with a parameter `events`."""

    def test_an_export_is_a_use_of_the_feature(self, events: Events) -> None:
        """The use belongs to the user and the account of the request."""
        self.assertEqual(post_export("ann", "acme", 7), 200)
        self.assertEqual(events.one("report_export").group_id, "acme")


class MoreExportTests(unittest.TestCase):
    """From Python 3.11, `self.enterContext(capture_events())` in `setUp` does the same for all tests."""

    def test_a_failed_export_is_no_use(self) -> None:
        """A view that does not succeed sends no event."""
        with capture_events() as events:
            self.assertEqual(post_export("ann", "acme", 8), 404)
        self.assertEqual(events.all, [])


if __name__ == "__main__":
    unittest.main()
