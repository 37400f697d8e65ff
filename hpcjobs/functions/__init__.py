"""Functions in Python, with submitit's face: hpcjobs.Executor and its jobs."""
