"""Encoding pages and reading them back, beside a plain copy that reads and writes as many bytes."""

from turns import Row, Session

PAGE_BYTES = {8: 4352, 4: 2304}  # of 64 x 64 numbers, scales included
PAGES = 1024


def scenes(threads):
    return [scene(operation, bits, threads) for operation in ("encode", "read_back") for bits in PAGE_BYTES]


def scene(operation, bits, threads):
    traffic = PAGES * (PAGE_BYTES[bits] + 64 * 64 * 4)
    sessions = {"ours": Session("turns", operation, {"bits": bits, "threads": threads}),
                "copy": Session("turns", "copy", {"bytes": traffic // 2, "threads": threads})}

    def gigabytes(name):
        return lambda seconds, facts: facts[name]["bytes"] / seconds[name] / 1e9

    words = {"encode": "quantize and pack", "read_back": "read back"}
    row = Row(f"{words[operation]} {bits}-bit pages / memcpy", "GB/s", threads, gigabytes("ours"), gigabytes("copy"),
              limit=gigabytes("copy"), probe="copy", must=0.6)
    return sessions, [row]
