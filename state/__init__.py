"""Keyed state and checkpoints; imported as `unistream.state`."""
