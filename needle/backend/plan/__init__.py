"""Recordings on the CPU: a plan is a list of NumPy calls on memory that is kept."""
