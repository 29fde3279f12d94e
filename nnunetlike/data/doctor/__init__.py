"""The dataset doctor: what is wrong with a raw task, and a copy of it that is mended."""
