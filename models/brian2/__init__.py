"""What Brian2 needs to hear of a relaxation: names, equations, delay lines, and a network that learns."""
