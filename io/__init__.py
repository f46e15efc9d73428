"""Sources and sinks; imported as `unistream.io`. The contract is in `unistream.io.base`."""
