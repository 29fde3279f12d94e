"""What is done to predicted label maps."""
