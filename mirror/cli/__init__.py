"""The command line. The only floor that prints, exits, reads the environment and sets up logging.

main       the entry point and the exit codes
app        what all commands share
sync       the command sync; syncing: its scope, its signals, and what is told meanwhile
reading    commands that only read: status, export, query
verify     the command verify; verifying: what is told of it
serving    serve and demo; healthcheck: whether a container that serves still can
progress   lines and JSON lines: displays that are event sinks; bars: the one for a terminal
tally      the numbers that they show
summary    what people are told at the end: plan, summary, status
streams    standard output and error, whoever leaves
text       numbers, times and words of strangers as they may stand on a terminal
"""

from __future__ import annotations
