#!/bin/sh
# needs go
# A Go program with cgo, dynamically linked: C calls, threads, callbacks, the resolver.
./program
