"""The run folder: the files through which the stages meet."""
