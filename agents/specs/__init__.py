"""Specs: from ``beta:credit=one-step``, a class or a file to an agent."""
