"""What lies outside of this process: networks, folders, commands, and the JSON that comes from there."""
