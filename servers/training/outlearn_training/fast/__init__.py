"""The fast path: the same fine-tuning and the same predictions as plain transformers, without the wasted work."""
