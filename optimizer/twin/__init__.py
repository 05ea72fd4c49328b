"""GPU profiles and their physics: the simulated GPU on which decisions are rehearsed."""
