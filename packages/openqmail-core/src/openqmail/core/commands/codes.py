"""What a command ends with; qmail's codes, and 1 where nothing was found."""

DONE, NONE, CANNOT, LATER = 0, 1, 100, 111
