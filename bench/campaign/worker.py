"""The other end of `nabla worker`: JSON lines that load problems and time items on request."""

import json
import subprocess
import threading


class WorkerError(Exception):
    """The worker refused a request or is gone."""


class Worker:
    """A worker process with one input on one device."""

    def __init__(self, command, timeout_s=120):
        self.timeout_s = timeout_s
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.hello = self._read("the start")
        if self.hello.get("reply") != "hello":
            raise WorkerError(f"expected the worker's hello, got {self.hello}")

    def _read(self, what):
        # A kernel that hangs must not hang the campaign: the kill ends the read.
        alarm = threading.Timer(self.timeout_s, self._process.kill)
        alarm.start()
        try:
            line = self._process.stdout.readline()
        finally:
            alarm.cancel()
        if not line:
            code = self._process.wait()
            raise WorkerError(f"the worker ended during {what} with status {code}")
        return json.loads(line)

    def _send(self, request):
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise WorkerError(f"the worker ended with status {self._process.wait()}") from None

    def _ask(self, request, expected):
        self._send(request)
        reply = self._read(request["ask"])
        if reply["reply"] != expected:
            raise WorkerError(f"{request['ask']}: {reply.get('reason', reply)}")
        return reply

    def open(self, policy, block, frames=None):
        """Loads a problem; `block` of None is dense. Returns its sizes, density, configurations and default."""
        target = {"frames": frames, "policy": policy, "block": block}
        return self._ask({"ask": "open", "target": target}, "opened")["opened"]

    def prepare(self, number, config):
        self._ask({"ask": "prepare", "number": number, "config": config}, "prepared")

    def verify(self, number, config):
        """Holds a candidate against float64; a WorkerError says what is wrong with it."""
        return self._ask({"ask": "verify", "number": number, "config": config, "on": "input"}, "verified")

    def save(self, number, path, heads):
        self._ask({"ask": "save", "number": number, "path": str(path), "heads": heads}, "saved")

    def time_us(self, items):
        """Times each item once, in the order given; None for one that failed."""
        self._send({"ask": "round", "order": items})
        times = []
        for _ in items:
            reply = self._read("a round")
            if reply["reply"] == "failed" and reply.get("lost"):
                raise WorkerError(f"the device is lost: {reply['reason']}")
            times.append(reply["time_us"] if reply["reply"] == "sample" else None)
        return times

    def close(self):
        """Ends the worker, however it fares."""
        try:
            self._process.stdin.close()
            self._process.wait(10)
        except (OSError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
