"""One file for each task that a job can do."""
