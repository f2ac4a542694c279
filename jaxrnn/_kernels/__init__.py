"""Kernels for the time loop: C++ for a CPU, Pallas for a GPU or a TPU."""
