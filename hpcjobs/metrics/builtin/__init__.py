"""The metrics that hpcjobs ships, a file each."""
