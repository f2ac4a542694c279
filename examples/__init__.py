"""Example programs, which use the public API of jaxrnn only."""
