"""The place of the soft tokens in what the LLM reads: what stands before and after them."""
