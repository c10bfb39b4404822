"""Inputs that several units share: made once a shape, since those of a long video are gigabytes and take a while."""

import shutil
import subprocess

# Free space that making an input leaves alone, in bytes.
RESERVE = 256 << 20


class Inputs:
    """Files of generated inputs below a results folder, there while their shape is measured.

    Sweeps and tunings keep their command lines in their logs: a name below the results folder, where every command runs,
    lets them go on wherever that folder is.
    """

    def __init__(self, pack, results):
        self._pack = pack
        self._results = results
        self._folder = results / "inputs"

    def options(self, shape, seconds):
        """Makes the input of a shape if it is not there, for at most so many seconds.

        Returns the options that give it to the program, and why they name no file, if they do not.
        """
        if shape.is_clip:
            return shape.input_options, ""
        path = self._folder / f"{shape.name}.safetensors"
        options = ["--input", str(path.relative_to(self._results))]
        if path.exists():
            return options, ""
        self._folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self._folder).free
        if free < shape.input_bytes + RESERVE:
            need, have = shape.input_bytes / 1e9, free / 1e9
            reason = f"its input takes {need:.2f} GB and {self._folder} has {have:.2f} GB free: each process makes it anew"
            return shape.input_options, reason
        draft = path.with_suffix(".new")
        command = self._pack.nabla("inputs", *shape.input_options, "--out", draft)
        try:
            made = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
        except subprocess.TimeoutExpired:
            draft.unlink(missing_ok=True)
            return shape.input_options, f"its input was not made within {seconds:.0f} s"
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
        if made.returncode != 0:
            draft.unlink(missing_ok=True)
            return shape.input_options, f"its input could not be made: {made.stderr.strip()[:300]}"
        draft.rename(path)
        return options, ""

    def drop(self):
        """Removes every input: the next shape has another."""
        shutil.rmtree(self._folder, ignore_errors=True)
