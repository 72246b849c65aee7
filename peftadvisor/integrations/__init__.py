"""Other tools: their configs read and written, their files fetched."""
