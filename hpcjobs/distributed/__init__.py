"""Ranks: rank and world size, rendezvous and process group, and when a rank has to stop."""
