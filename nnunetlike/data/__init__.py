"""Cases and their files: arrays, geometry, labels, dataset.json, splits, preprocessed store."""
