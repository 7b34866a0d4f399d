"""The language of the DSR operator: typed models of its API objects. No I/O, no decisions."""
