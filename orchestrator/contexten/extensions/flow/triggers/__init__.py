"""What happens outside, or at a time, starts flows: triggers, and the record of what was delivered to them."""
