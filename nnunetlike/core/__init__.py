"""Ground floor: errors, registries, files, folders and processes. Knows nothing of images."""
