"""A real Nginx in front of a gateway, with everything it writes in one folder."""

import os
import pathlib
import re
import shutil

from processes import free_port, spawn
from wire import Wire, wait_for

CONFIG = """\
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/error.log info;
events {{ worker_connections 512; }}
http {{
  log_format told '"$upstream_addr" "$upstream_status" $request_method $request_uri';
  access_log {folder}/access.log told;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  client_max_body_size 64m;
  upstream gateway {{ server 127.0.0.1:{gateway_port}; keepalive {kept}; }}
  server {{
    listen 127.0.0.1:{port};
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_set_header Host $host;
    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    proxy_read_timeout 600s;
    {extra}
    location /v1/ {{ proxy_pass http://gateway{suffix}; }}
    location = /healthz {{ proxy_pass http://gateway; }}
  }}
}}
"""


class Nginx:
    """
    `strips`: proxy_pass ends in a slash, so that the gateway sees paths without /v1. `kept`: how many connections to it
    are kept between two requests.
    """

    def __init__(self, folder, gateway, strips=False, extra="", kept=16):
        self.folder = pathlib.Path(folder)
        self.port = free_port()
        config = self.folder / "nginx.conf"
        config.write_text(CONFIG.format(folder=folder, port=self.port, gateway_port=gateway.port, extra=extra, kept=kept,
                                        suffix="/" if strips else ""))
        program = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
        with open(self.folder / "stderr", "wb") as errors:
            self.process = spawn([program, "-p", folder, "-c", config], stdout=errors, stderr=errors)
        wait_for(self.answers, 10, "Nginx")

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def answers(self):
        assert self.process.poll() is None, (self.folder / "stderr").read_text()
        try:
            return self.call("GET", "/healthz").status == 200
        except OSError:
            return False

    def wire(self):
        return Wire(("127.0.0.1", self.port))

    def call(self, method, path, body=None, headers=()):
        wire = self.wire()
        try:
            return wire.request(method, path, headers, body).answer(method)
        finally:
            wire.close()

    def passed_on(self, since=0):
        """
        (method, path, status) of each request that went to the gateway, with the gateway's answer as Nginx saw it (0: it
        did not wait for one); and how far the log was read.
        """
        found = []
        with open(self.folder / "access.log", "rb") as log:
            log.seek(since)
            text = log.read()
        text = text[:text.rfind(b"\n") + 1]
        for line in text.decode().splitlines():
            tries, statuses, method, path = re.fullmatch(r'"(.*)" "(.*)" (\S+) (.*)', line).groups()
            if tries != "-":
                found += [(method, path.partition("?")[0], int(status.replace("-", "0"))) for status in statuses.split(", ")]
        return found, since + len(text)

    def stop(self):
        self.process.terminate()
        self.process.wait(10)
        assert "alert" not in (self.folder / "error.log").read_text(errors="replace")
