"""The engines beside the bare libraries that they wrap."""
