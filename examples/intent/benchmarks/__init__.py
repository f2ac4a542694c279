"""The model of `examples/intent` in other libraries: the same weights, batches, noise, loss and optimizer."""
