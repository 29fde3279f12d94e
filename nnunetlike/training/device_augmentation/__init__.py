"""The augmentation of training patches, computed by torch where the network is.

What is done is drawn and described on the host, by the same numbers as for `training.augmentation`,
whose results these modules repeat on any device; only the field of noise is another one.
"""
