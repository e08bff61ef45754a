"""Networks that one paper alone needs."""
