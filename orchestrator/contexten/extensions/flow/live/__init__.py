"""What was committed, told to whoever listens or waits."""
