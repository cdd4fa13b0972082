"""The documentation's site: the pages that are made of the code, and what mkdocs is told beyond `mkdocs.yml`."""
