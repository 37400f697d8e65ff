"""hpcjobs: Slurm batch jobs for models and data that end complete and scored, whatever dies on the way."""

__version__ = "0.1.0"
