"""Tasks: where problems with worked solutions come from."""
