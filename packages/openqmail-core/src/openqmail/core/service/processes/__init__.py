"""The processes: what each does from the fork to its end."""
