"""Tasks of lm-evaluation-harness, with that library's own prompts, filters and metrics.

Nothing else in hpcjobs imports lm_eval, and these modules import it inside functions only.
"""
