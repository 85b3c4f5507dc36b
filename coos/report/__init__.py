"""Reports: tables beside the published ones, figures, and one self-contained HTML page per comparison."""
