#!/usr/bin/env python3
"""The shared library exports what ds4.h declares, and nothing else.

    check_symbols.py LIBRARY HEADER
"""
import re
import subprocess
import sys


def main():
    library, header = sys.argv[1:]
    listing = subprocess.run(["nm", "-D", "--defined-only", library], check=True,
                             capture_output=True, text=True).stdout
    exported = {line.split()[-1].split("@")[0] for line in listing.splitlines()}
    with open(header, encoding="utf-8") as file:
        declared = set(re.findall(r"DS4_API[^;(]*?\b(ds4_\w+)\(", file.read()))
    missing, extra = declared - exported, exported - declared
    for name in sorted(missing):
        print(f"declared and not exported: {name}")
    for name in sorted(extra):
        print(f"exported and not declared: {name}")
    print(f"{len(declared)} functions declared, {len(exported)} symbols exported")
    return 1 if missing or extra or not declared else 0


if __name__ == "__main__":
    sys.exit(main())
