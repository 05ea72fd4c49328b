"""The gRPC server itself: registration, limits, TLS, tokens, status mapping."""
