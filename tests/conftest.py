"""Every test has 8 virtual devices; doctests and benchmarks have the one that users have."""

import jax

jax.config.update("jax_num_cpu_devices", 8)
