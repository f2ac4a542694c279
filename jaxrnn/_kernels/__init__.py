"""Time loops that XLA does not compile: C++ on a CPU, Pallas on a GPU or a TPU."""
