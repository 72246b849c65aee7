"""Record real modules without weights or a GPU; evaluate the recording without torch."""
