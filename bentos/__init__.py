"""The BentoML service: HTTP in, a decision on record out."""
