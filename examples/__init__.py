"""Examples: programs that use jaxrnn's public API."""
