"""The contract between planning and everything after it: topology, plans, fingerprint."""
