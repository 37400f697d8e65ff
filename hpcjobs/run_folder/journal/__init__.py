"""Journals: the results of one rank, one JSON object per line, written by one process."""
