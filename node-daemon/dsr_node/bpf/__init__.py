"""BPF programs, maps and XDP links through libbpf.so.1 (1.1 or later), by ctypes. Knows no DSR."""
