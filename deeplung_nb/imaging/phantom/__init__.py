"""Synthetic chests of known truth: `spec` says what, `make` makes it, `cohort` draws many."""
