"""Parts that the command-line clients share: options, output, error messages, waiting."""
