"""From raw cases to a fingerprint, and from that to plans."""
