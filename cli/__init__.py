"""The command line, `vivace`.

Help, completion and errors of usage load as little as possible: measured, argparse alone takes as
long as Python itself, so commands are declared as data and read by a small parser of our own.
"""
