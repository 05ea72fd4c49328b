"""The asyncio shell around the batch queue and the engine thread."""
