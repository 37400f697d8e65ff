"""Launch: into Slurm's queue, or onto this machine."""
