"""Pictures of runs, one file a question."""
