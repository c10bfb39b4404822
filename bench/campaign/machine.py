"""What the measurements ran on: device, driver, clocks, versions."""

import json
import os
import platform
import re
import shutil
import subprocess
import sys

# What nvidia-smi is asked of the GPU.
GPU_FIELDS = (
    "name", "driver_version", "memory.total", "compute_cap", "clocks.sm", "clocks.mem", "clocks.max.sm",
    "clocks.max.mem", "power.limit", "temperature.gpu", "persistence_mode", "compute_mode", "mig.mode.current",
)  # fmt: skip


def describe(pack):
    """Returns the machine as JSON values; `device` is None where the backend has none, with `device_error`."""
    machine = {
        "platform": platform.platform(),
        "python": platform.python_version(),
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "gpu": gpu(),
        "peers": peers(),
    }
    machine["info"] = subprocess.run(pack.nabla("info"), capture_output=True, text=True).stdout
    machine.update(device(pack))
    return machine


def device(pack):
    """Lets a worker say what it runs on: the names are those of the records."""
    command = pack.nabla("worker", "--generate", "video:1,8,8,1,64", *pack.device())
    said = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if said.returncode != 0:
        return {"device": None, "device_error": said.stderr.strip()}
    hello = json.loads(said.stdout.splitlines()[0])
    names = ("device", "driver", "isa", "threads", "commit", "sources", "toolchain")
    return {name: hello.get(name) for name in names}


def slug_of(machine):
    """Names a folder after the device: `nvidia-h100-80gb-hbm3`."""
    name = machine["device"] + (f" {machine['threads']} threads" if machine["threads"] else "")
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def cpu_model():
    try:
        with open("/proc/cpuinfo") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def gpu():
    """Asks nvidia-smi; an empty answer where there is none."""
    if not shutil.which("nvidia-smi"):
        return {}
    command = ["nvidia-smi", f"--query-gpu={','.join(GPU_FIELDS)}", "--format=csv,noheader"]
    said = subprocess.run(command, capture_output=True, text=True).stdout.strip().splitlines()
    return dict(zip(GPU_FIELDS, (cell.strip() for cell in said[0].split(",")), strict=False)) if said else {}


def peers():
    """Asks a process of its own for the versions of torch and triton: importing them takes seconds and may crash."""
    program = (
        "import json, torch\n"
        "said = {'torch': torch.__version__, 'cuda': torch.version.cuda, 'cudnn': torch.backends.cudnn.version()}\n"
        "try:\n import triton; said['triton'] = triton.__version__\nexcept ImportError: pass\n"
        "print(json.dumps(said))"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    return json.loads(said.stdout) if said.returncode == 0 else {}
