"""What can only be tried on a machine with a GPU: run by hand there, no part of the tests."""
