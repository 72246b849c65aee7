"""From a recording and a GPU to memory, time and dollars, and how sure that is."""
