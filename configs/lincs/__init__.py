"""LINCS Cell Painting (Bornholdt 2021)."""
