"""Ends and forks of the process."""
