"""Two runs side by side, and one job at several world sizes."""
