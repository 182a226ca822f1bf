"""The processes: starts them, introduces the jobs to each other, and runs them for one home."""
