"""Redis, or nothing: `Store` is what a service can forget. Nothing here raises to a handler but `ping`."""
