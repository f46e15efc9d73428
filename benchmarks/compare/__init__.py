"""unistream beside other engines: the same rows on the same machine, in turn, outputs compared."""
