"""Readers that bring a data set into the transaction schema of `feature_repo.schema`."""
