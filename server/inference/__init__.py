"""The inference protocol: what each RPC means."""
