"""A rank's results, one JSON object a line, with one writer ever."""
