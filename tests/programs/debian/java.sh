#!/bin/bash
# timeout 300
# slow
# The JVM and its compiler: threads, files, sockets, processes, memory, signals.
java -version 2>&1 | head -n 1 | cut -d'"' -f1
javac -J-Xmx256m Main.java && java -Xmx128m -cp . Main
java -Xmx64m -cp absent Absent 2> /dev/null; echo "no class: $?"
java -Xmx32m -cp . Main exhaust 2> /dev/null; echo "out of memory: $?"
keytool -genkeypair -alias a -keyalg RSA -keysize 2048 -dname CN=a -keystore k -storepass secret -validity 10 2> /dev/null
keytool -list -keystore k -storepass secret 2> /dev/null | grep -c PrivateKeyEntry
