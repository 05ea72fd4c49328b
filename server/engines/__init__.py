"""One file an engine, all behind the Engine protocol of engine.py."""
