"""What is measured: one file per side, run in that side's own interpreter by `worker.py`.

A side has `STAGES`, by name a function that is given the folder of a stage's inputs and returns
what is timed: a function without arguments, whose value is an array or a dictionary of arrays. It
imports its library only inside these functions, and besides it NumPy and the standard library. And
it has `DISTRIBUTIONS`, the packages whose versions are told.
"""
