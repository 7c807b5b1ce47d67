"""Parts of the interactive client: keyboard, screen, and the conversation between them."""
