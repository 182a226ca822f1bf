"""The first process: starts the others, and nothing else."""
