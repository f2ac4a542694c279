"""Weights and adapters of other libraries, a module each. Nothing is imported here: name the module you need."""
