"""The command line. The only floor that prints, exits, reads the environment and sets up logging.

main       the commands and their exit codes
syncing    sync: settings, scope, signals, and what is told meanwhile
progress   bars, lines and JSON lines: displays that are event sinks
tally      the numbers that they show
summary    what people are told at the end: plan, summary, status
streams    standard output and error, whoever leaves
text       numbers, times and words of strangers as they may stand on a terminal
"""

from __future__ import annotations
