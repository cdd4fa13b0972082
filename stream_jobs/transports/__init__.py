"""Where events come from: one module per transport, all with the contract of `stream_jobs.transports.base`."""
