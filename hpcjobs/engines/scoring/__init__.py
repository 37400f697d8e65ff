"""Log-likelihoods of options and texts; shared prefixes are computed once."""
