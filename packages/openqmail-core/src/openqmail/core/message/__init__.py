"""The message itself: trace fields, a scan of the header, what a new one lacks, line endings.

Commands that start often import parts of it, so this face hands nothing on: name the module.
"""
