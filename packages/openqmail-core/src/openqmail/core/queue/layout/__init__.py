"""qmail's own queue on the disk: one small file a fact, byte for byte as netqmail has it."""
