"""What is measured and how trouble shows: metrics, drift, local processes."""
