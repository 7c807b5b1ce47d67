"""The parts of the interactive client: keys in, text out, and the conversation between them."""
