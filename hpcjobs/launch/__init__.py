"""Launch: queue jobs in Slurm, or start them on this machine."""
