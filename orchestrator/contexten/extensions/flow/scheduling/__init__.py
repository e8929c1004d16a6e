"""Which run starts next: the strategy and limits in force, demands, rates, estimates and what they foretell."""
