"""From a trained model and images to label maps."""
