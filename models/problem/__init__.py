"""The ODEs: which relaxation, of which batch, from where, clamped to what."""
