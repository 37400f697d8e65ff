"""hpcjobs: Slurm jobs for models and data that finish complete and scored, even when ranks or nodes die."""

__version__ = "0.1.0"
