"""Foreign data set layouts to raw tasks."""
