"""The flow behind each verb: these modules know every stage."""
