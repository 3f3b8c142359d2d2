"""The plan of a night: when each instrument of a library would end on given cards, and what that costs."""
