"""Console scripts: parse, call, report."""
