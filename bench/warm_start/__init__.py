"""How much sooner the governor settles when a prediction tells it where to begin."""
