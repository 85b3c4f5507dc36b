"""From single-cell features to consensus profiles: tables, and steps that are fitted on and applied to them."""
