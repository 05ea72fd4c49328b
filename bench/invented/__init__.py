"""Cards, networks, traffic and targets drawn by lot: nobody can have tuned anything to them."""
