"""Running the governor beside the server, and the operator who watches it."""
