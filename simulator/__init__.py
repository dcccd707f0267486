"""Plays a whole plant with labelled faults; an independent writer that imports none of ours."""
