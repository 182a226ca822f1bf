"""A toy add-on: one thing for each group of entry points."""
