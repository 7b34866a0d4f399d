"""What the backends serve: a real web server, and UDP echo."""

from __future__ import annotations

import sys
from pathlib import Path

from lab.names import Member
from lab.namespaces import program
from lab.node import Program

BIG_BYTES = 50 * 1024 * 1024
"""Size of /big."""
UDP_PORT = 53

NGINX = """
daemon off;
user root;
worker_processes 1;
pid /run/nginx.pid;
error_log stderr warn;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 1000000;
    default_type text/plain;
    server {{
        listen 80 backlog=8192;
        listen [::]:80 backlog=8192 ipv6only=on;
        add_header X-Backend {name};
        location = / {{ return 200 "{name}\\n"; }}
        location / {{ root /var/lib/web; }}
    }}
}}
"""


def prepare(member: Member, disk: Path) -> None:
    """Lay out what the servers need. `disk` is what the node will see as /var/lib."""
    (disk / "web").mkdir(parents=True, exist_ok=True)
    (disk / "nginx").mkdir(exist_ok=True)
    (disk / "nginx.conf").write_text(NGINX.format(name=member.name))
    with (disk / "web" / "big").open("wb") as file:
        file.truncate(BIG_BYTES)


def servers(member: Member) -> tuple[Program, ...]:
    """The programs of a backend: `web` on port 80, `echo` on UDP_PORT."""
    # -e: the log before the configuration is read, else /var/log/nginx of the host.
    nginx = (program("nginx"), "-e", "stderr", "-c", "/var/lib/nginx.conf")
    echo = (sys.executable, "-m", "lab.echo", member.name, str(UDP_PORT))
    return (Program("web", nginx), Program("echo", echo))
