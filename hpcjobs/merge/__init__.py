"""Merge: the ranks' journals become one table and its metrics, or a list of what is missing."""
