"""Learning inside Brian2: a network that runs both phases and changes its weights."""
