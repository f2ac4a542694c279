"""The time loop as one kernel of Pallas: what is common to all, and a kernel for each kind of accelerator."""
