"""Proof that decorating changes nothing: the test suites of other packages, with every function decorated."""
