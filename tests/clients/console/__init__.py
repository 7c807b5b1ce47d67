"""What the command-line clients share: their options, their files, and how they speak to a person."""
