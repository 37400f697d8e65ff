"""Log-likelihoods of options and texts, with shared prefixes computed once."""
