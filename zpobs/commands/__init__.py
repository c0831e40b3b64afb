"""The commands, one module each; ``zpobs.cli`` registers them."""
