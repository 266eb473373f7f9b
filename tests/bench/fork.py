"""The cost of a process: a bare fork in C, of bare Python, and of an isolate's parent.

``python -S -E fork.py N`` is a small process of its own; it prints JSON, microseconds each.  The C
fork is omitted if there is no compiler.
"""

import gc
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time

C = """
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
int main(int argc, char **argv) {
    for (int i = 0, n = atoi(argv[1]); i < n; i++) {
        struct timespec a, b;
        clock_gettime(CLOCK_MONOTONIC, &a);
        pid_t pid = fork();
        if (!pid) _exit(0);
        waitpid(pid, 0, 0);
        clock_gettime(CLOCK_MONOTONIC, &b);
        printf("%f\\n", (b.tv_sec - a.tv_sec) * 1e6 + (b.tv_nsec - a.tv_nsec) / 1e3);
    }
}
"""


def in_c(times):
    compiler = shutil.which("cc")
    if compiler is None:
        return []
    with tempfile.TemporaryDirectory() as folder:
        program = f"{folder}/fork"
        command = [compiler, "-O2", "-x", "c", "-", "-o", program]
        subprocess.run(command, input=C, text=True, check=True)
        output = subprocess.run([program, str(times)], capture_output=True, text=True, check=True)
    return [float(line) for line in output.stdout.split()]


def in_python(times):
    gc.collect()
    gc.freeze()
    found = []
    for _ in range(times):
        started = time.perf_counter()
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
        found.append((time.perf_counter() - started) * 1e6)
    return found


if __name__ == "__main__":
    n = int(sys.argv[1])
    python = in_python(n)
    print(json.dumps({"C": in_c(n), "Python": python}))
