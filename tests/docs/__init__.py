"""The commands of README and docs/ are typed, and their outputs compared: `python -m tests.docs docs/compare.md`."""
