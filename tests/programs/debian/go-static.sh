#!/bin/sh
# needs go
# A static Go program: goroutines, timers, files, processes, sockets, signals.
./program
