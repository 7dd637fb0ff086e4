"""Any PyTorch module as a network: its forward pass on a tape, the pieces it falls into, and the recorded path."""
