"""The demonstration: one query over generated orders, in batch and live, with a crash in the middle."""
