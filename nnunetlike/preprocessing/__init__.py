"""Arrays on their way to the network and back: crop, resample, normalise."""
