"""Fitting a surrogate to logged runs."""
