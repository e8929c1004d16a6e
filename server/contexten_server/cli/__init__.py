"""The command line. Its modules import the terminal's and the engine's libraries only when a command needs them."""
