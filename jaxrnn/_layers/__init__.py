"""Composites of cells, and layers without a recurrence."""
