"""Other durable engines doing the same work at the same durability, each in one module."""
