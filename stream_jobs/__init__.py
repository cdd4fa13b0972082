"""The Bytewax jobs that keep windowed features fresh, and the transports that feed them."""
