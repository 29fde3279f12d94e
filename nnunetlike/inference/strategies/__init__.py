"""Ways to run a network over a whole image."""
