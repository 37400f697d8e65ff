"""Loading a model and its tokenizer, ready to generate: the public face of `hpcjobs.engines.loader`."""

from hpcjobs.engines.loader import ModelSource, load_model, load_tokenizer

__all__ = ["ModelSource", "load_model", "load_tokenizer"]
