"""Speed and quality, each as a ratio to a rival or a limit in the same run."""

from process.priority import sleep_while_waiting

sleep_while_waiting()  # as the command `streamgcn` does
