"""Stages of the pipeline measured side by side with the peers; `python -m benchmarks --help`."""
