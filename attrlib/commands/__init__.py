"""The longer commands of `python -m attrlib`, one module each: options, and the work."""
