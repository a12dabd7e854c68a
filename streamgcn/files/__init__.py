"""Files of interactions -> events in the order of their times, checked by the consumer's rules.

source      files, patterns, standard input; compressed or not
text        their lines, in the encoding that they have
delimited   commas, tabs, semicolons, bars, double colons, spaces  ┐
objects     JSON                                                   ├ blocks of columns
parquet     Parquet                                                ┘
columns     which column holds what
moments     a column of times -> UTC; dates has the forms of dates
events      a block -> good events, and why each other row is none
ordered     all events on disk, given back oldest first
load        all of these for one command
"""
