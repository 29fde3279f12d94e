"""Random changes to training patches."""
