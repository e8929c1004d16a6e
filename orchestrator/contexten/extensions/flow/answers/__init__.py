"""What is told: runs, flows and events as views, figures, the whole at a glance."""
