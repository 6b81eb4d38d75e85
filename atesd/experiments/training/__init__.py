"""Training an agent over many runs."""
