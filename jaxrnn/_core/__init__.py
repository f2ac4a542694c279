"""What the rest of the library stands on: cells, masks, recurrences, initializers, checks."""
