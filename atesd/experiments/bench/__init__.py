"""Runs of the bench: which are made, what they came to on each instance, and whether they are what they say."""
