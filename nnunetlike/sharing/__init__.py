"""Trained models as zip files: exporting, downloading, and installing what strangers made."""
