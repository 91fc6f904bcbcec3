"""tcia-mirror."""
