"""Tests of identity: the acting user and account."""
