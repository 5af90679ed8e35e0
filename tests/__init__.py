"""The tests of ts_autotrack."""
