"""The plant file and the settings that follow from it."""
