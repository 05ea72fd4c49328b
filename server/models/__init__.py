"""The model repository on disk, and the table of models that are loaded."""
