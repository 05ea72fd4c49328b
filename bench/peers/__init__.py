"""Other servers, for comparison: each in an environment of its own, with a small adapter."""
