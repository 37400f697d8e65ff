"""Tasks and options of lm-evaluation-harness against `simple_evaluate`, on rows laid out as the hub's data sets are."""
