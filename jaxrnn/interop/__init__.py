"""Weights and adapters of other libraries, one module each. Import the module that you need by its name."""
