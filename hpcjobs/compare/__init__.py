"""Compare two runs, or one job at several world sizes."""
