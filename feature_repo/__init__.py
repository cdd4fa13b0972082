"""What a transaction is, what each feature means, and where features live: the one definition every part imports."""
